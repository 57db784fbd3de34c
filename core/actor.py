"""On whose behalf something is done: what the records of effects and the audit say of it."""

from contextvars import ContextVar
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Actor:
    """Who does something, and in which run.

    Attributes:
        tenant: Whose data is touched.
        user: Who asked, as their authentication says.
        key_id: What vouched for them: ``key <id>``, ``token``, or nothing.
        thread_id: The thread it is done on; empty: on none.
        run_id: The run that does it; empty: none does.
    """

    tenant: str = "default"
    user: str = "local"
    key_id: str = ""
    thread_id: str = ""
    run_id: str = ""


_ACTING: ContextVar[Actor] = ContextVar("acting", default=Actor())  # noqa: B039 - it is frozen


def acting() -> Actor:
    """On whose behalf this task works."""
    return _ACTING.get()


def act_as(actor: Actor) -> None:
    """Say on whose behalf this task, and every task it starts from here on, works."""
    _ACTING.set(actor)
