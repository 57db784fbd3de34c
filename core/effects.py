"""Effects on the outside (a message sent, a ticket made, a record changed), each made once."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

# JSON values.
Arguments: TypeAlias = Mapping[str, Any]
Outcome: TypeAlias = dict[str, Any]


class Effects(Protocol):
    """Where effects are recorded before and after they are made."""

    async def run_once(
        self, key: str, action: str, arguments: Arguments, do: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        """Make an effect, or give the outcome it had.

        One that was begun and not finished (a crash, an answer that was lost, a refusal) is made again: its
        key, under which the other side does the thing once, covers that gap.

        Args:
            key: The effect's idempotency key.
            action: What is done, e.g. ``send_message``.
            arguments: With what, as JSON; the same for the same key.
            do: Makes the effect, under ``key``, and gives its outcome as JSON.

        Raises:
            EffectConflict: The key is known with another action or other arguments.
            DatabaseUnavailable: The records cannot be read or written. What could not be recorded before is
                not made.
        """
        ...


class UnrecordedEffects:
    """No records: each effect is made when it is asked for. For graphs without the service's database."""

    async def run_once(
        self,
        key: str,  # noqa: ARG002 - the port's
        action: str,  # noqa: ARG002
        arguments: Arguments,  # noqa: ARG002
        do: Callable[[], Awaitable[Outcome]],
    ) -> Outcome:
        """Make it."""
        return await do()
