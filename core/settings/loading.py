"""All groups of settings together, validated at start."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final, Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsError

from core.errors import StartupError
from core.settings.events import AmqpSettings, EventSettings, WebhookSettings, WhatsAppSettings
from core.settings.memory import ContextSettings, MemorySettings, RerankSettings
from core.settings.models import EmbeddingSettings, FeatureSettings, ModelSettings
from core.settings.runs import (
    ApprovalSettings,
    CrmSettings,
    MessageSettings,
    QueueSettings,
    RunSettings,
    SessionSettings,
    WorkflowSettings,
)
from core.settings.server import AuthSettings, LimitSettings, LogSettings, ServerSettings, TracingSettings
from core.settings.storage import (
    AuditSettings,
    CacheSettings,
    DatabaseSettings,
    IdempotencySettings,
    RedisSettings,
    RetentionSettings,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """All groups, validated together by :meth:`load`."""

    server: ServerSettings
    auth: AuthSettings
    limits: LimitSettings
    database: DatabaseSettings
    models: ModelSettings
    embeddings: EmbeddingSettings
    cache: CacheSettings
    redis: RedisSettings
    crm: CrmSettings
    memory: MemorySettings
    rerank: RerankSettings
    context: ContextSettings
    messages: MessageSettings
    sessions: SessionSettings
    runs: RunSettings
    queue: QueueSettings
    idempotency: IdempotencySettings
    workflows: WorkflowSettings
    events: EventSettings
    webhooks: WebhookSettings
    amqp: AmqpSettings
    whatsapp: WhatsAppSettings
    approvals: ApprovalSettings
    retention: RetentionSettings
    audit: AuditSettings
    log: LogSettings
    tracing: TracingSettings
    features: FeatureSettings

    @classmethod
    def load(cls, **overrides: BaseSettings) -> Self:
        """Read the environment, ``.env`` and the files of secrets.

        Args:
            **overrides: Groups to use instead of the environment's.

        Raises:
            StartupError: Some settings are invalid. The message has a line for each, and no secret values.
        """
        groups: dict[str, Any] = dict(overrides)
        faults: list[str] = []
        for name, group in GROUPS.items():
            if name in groups:
                continue
            try:
                groups[name] = group()
            except ValidationError as error:
                faults += _describe_faults(group, error)
            except SettingsError as error:
                # Raised only for JSON that cannot be parsed, with the field's name in quotes.
                field = str(error).split('"')[1]
                faults.append(f"setting {env_name(group, field)}: must be JSON")
            except UnicodeDecodeError:
                raise StartupError(".env is not UTF-8 text; save it as UTF-8") from None
        if faults:
            raise StartupError("\n".join(faults))
        return cls(**groups)


GROUPS: Final[Mapping[str, type[BaseSettings]]] = {
    field.name: field.type for field in fields(Settings) if isinstance(field.type, type)
}


def env_name(group: type[BaseSettings], field: str) -> str:
    """Return the environment variable of a field, e.g. ``RUN_MAX_CONCURRENT``."""
    return f"{group.model_config.get('env_prefix', '')}{field}".upper()


def _describe_faults(group: type[BaseSettings], error: ValidationError) -> list[str]:
    lines = []
    for fault in error.errors(include_url=False, include_context=False):
        field = str(fault["loc"][0]) if fault["loc"] else ""
        is_secret = (
            "Secret" in str(group.model_fields[field].annotation) if field in group.model_fields else True
        )
        value = "" if is_secret else f" (got {fault['input']!r})"
        message = fault["msg"].removeprefix("Value error, ")
        lines.append(f"setting {env_name(group, field)}: {message}{value}")
    return lines
