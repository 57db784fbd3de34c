"""Every setting of the service, validated at start.

This package alone reads the environment, ``.env`` and the files of secrets. A group of settings is a class;
the prefix of its environment variables is in ``model_config``, so ``RunSettings.max_concurrent`` is
``RUN_MAX_CONCURRENT``. ``.env.example`` and the reference of the settings are generated from these fields.
"""

from core.settings.base import LOOPBACK
from core.settings.events import AmqpSettings, EventSettings, WebhookSettings, WhatsAppSettings
from core.settings.loading import GROUPS, Settings, env_name
from core.settings.memory import ContextSettings, MemorySettings, RerankSettings
from core.settings.models import EmbeddingSettings, FeatureSettings, ModelSettings
from core.settings.runs import (
    AllowedHost,
    ApprovalSettings,
    CrmRequest,
    CrmSettings,
    MessageSettings,
    QueueSettings,
    RunSettings,
    SessionSettings,
    WorkflowSettings,
)
from core.settings.server import (
    NO_RATE,
    AuthSettings,
    LimitSettings,
    LogSettings,
    ServerSettings,
    TracingSettings,
)
from core.settings.storage import (
    AuditSettings,
    CacheSettings,
    DatabaseSettings,
    IdempotencySettings,
    RedisSettings,
    RetentionSettings,
)

__all__ = [
    "GROUPS",
    "LOOPBACK",
    "NO_RATE",
    "AllowedHost",
    "AmqpSettings",
    "ApprovalSettings",
    "AuditSettings",
    "AuthSettings",
    "CacheSettings",
    "ContextSettings",
    "CrmRequest",
    "CrmSettings",
    "DatabaseSettings",
    "EmbeddingSettings",
    "EventSettings",
    "FeatureSettings",
    "IdempotencySettings",
    "LimitSettings",
    "LogSettings",
    "MemorySettings",
    "MessageSettings",
    "ModelSettings",
    "QueueSettings",
    "RedisSettings",
    "RerankSettings",
    "RetentionSettings",
    "RunSettings",
    "ServerSettings",
    "SessionSettings",
    "Settings",
    "TracingSettings",
    "WebhookSettings",
    "WhatsAppSettings",
    "WorkflowSettings",
    "env_name",
]
