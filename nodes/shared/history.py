"""What a model sees of a thread's earlier turns."""

from collections.abc import Sequence
from itertools import dropwhile

from langchain_core.messages import AIMessage, AnyMessage, HumanMessage


def spoken(earlier: Sequence[AnyMessage], most: int) -> list[AnyMessage]:
    """What was asked and what was answered, at most ``most`` messages, a person speaking first.

    Tool calls are left out, as they would need their replies beside them. So is an answer whose question is
    too old: it would come first, where providers want a person to speak.
    """
    kept = [message for message in earlier if _is_spoken(message)][-most:]
    return list(dropwhile(lambda message: isinstance(message, AIMessage), kept))


def _is_spoken(message: AnyMessage) -> bool:
    return isinstance(message, HumanMessage) or (isinstance(message, AIMessage) and not message.tool_calls)
