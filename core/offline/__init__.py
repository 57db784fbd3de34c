"""The offline model: answers without a language model where code can, and says so where it cannot."""

from core.offline.model import OFFLINE_MODEL_NAME, OfflineChatModel

__all__ = ["OFFLINE_MODEL_NAME", "OfflineChatModel"]
