"""The offline model: a deterministic stand-in that lets the service run with no network and no key.

It is not a language model. It reads the same messages, tools and schemas as one, and answers by lexical
matching: it ranks tools and sentences by the words they share with the request, and quotes what it finds.
"""

from core.offline.model import OFFLINE_MODEL_NAME, OfflineChatModel

__all__ = ["OFFLINE_MODEL_NAME", "OfflineChatModel"]
