"""What of a session an agent is shown in full: the turns that its summary does not tell of."""

from collections.abc import Sequence

from langchain_core.messages import AnyMessage

from core.packing import ContextRecord
from nodes.shared.conversation import select_spoken

# Beyond it turns are summarised however short they are.
MOST_TURNS = 60


def unsummarised(
    messages: Sequence[AnyMessage], *, turn: str, summarised_to: str, most: int = MOST_TURNS
) -> list[AnyMessage]:
    """What was said before this message and after what the summary tells of, oldest first.

    Args:
        messages: The session's.
        turn: Id of the message that is answered now; empty: all are earlier.
        summarised_to: Id of the last message the summary tells of; empty: there is no summary.
        most: Newest messages that are looked at.
    """
    ids = [message.id for message in messages]
    start = ids.index(summarised_to) + 1 if summarised_to in ids else 0
    earlier = [message for message in messages[start:] if message.id != turn]
    return select_spoken(earlier, most)


def with_room(
    earlier: Sequence[AnyMessage], most: int, context: Sequence[ContextRecord] | None
) -> list[AnyMessage]:
    """What was asked and answered, without the turns that the context had no room for.

    Args:
        earlier: What was said before this run.
        most: Newest messages that are looked at.
        context: What became of the run's context; None or empty: nothing was packed.
    """
    dropped = {
        each["id"]
        for record in context or ()
        for section in record["sections"]
        if section["section"] == "conversation"
        for each in section["dropped"]
    }
    return select_spoken(
        [message for message in select_spoken(earlier, most) if message.id not in dropped], most
    )
