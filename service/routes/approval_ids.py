"""Ids of pending questions: the interrupt's and the thread's."""

# Between the interrupt's id, which is hexadecimal, and the thread's.
_SEPARATOR = "."


def approval_id(interrupt_id: str, thread_id: str) -> str:
    """Names a question at ``/v1/approvals/{id}``."""
    return f"{interrupt_id}{_SEPARATOR}{thread_id}"


def parts(named: str) -> tuple[str, str]:
    """The interrupt's id and the thread's; one that is missing is empty."""
    interrupt_id, _, thread_id = named.partition(_SEPARATOR)
    return interrupt_id, thread_id
