"""Chat models, with calls that are bounded in time, retried, and handed to a fallback."""

from core.models.calls import ChatModels, ModelFactory, ModelInfo, ModelSpec, Role
from core.models.providers import DEFAULT_MODEL, build_chat_models
from core.models.replies import StructuredReply, is_truncated, is_unable
from core.models.streams import private_replies, track_answers

__all__ = [
    "DEFAULT_MODEL",
    "ChatModels",
    "ModelFactory",
    "ModelInfo",
    "ModelSpec",
    "Role",
    "StructuredReply",
    "build_chat_models",
    "is_truncated",
    "is_unable",
    "private_replies",
    "track_answers",
]
