"""External effects (a message is sent, a ticket is created, a record is changed), each made once."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Protocol, TypeAlias

# JSON values.
Arguments: TypeAlias = Mapping[str, Any]
Outcome: TypeAlias = dict[str, Any]


class Effects(Protocol):
    """Records effects before and after they are made."""

    async def run_once(
        self, key: str, action: str, arguments: Arguments, do: Callable[[], Awaitable[Outcome]]
    ) -> Outcome:
        """Make an effect, or return the outcome that it had when it was made before.

        An effect that was begun but not finished (a crash, a lost answer, a rejection) is made again. Its
        key, which the receiving system uses to do it only once, covers that gap.

        Args:
            key: The idempotency key of the effect.
            action: What is done, e.g. ``send_message``.
            arguments: The arguments as JSON; the same key always has the same ones.
            do: Makes the effect with ``key`` and returns its outcome as JSON.

        Raises:
            EffectConflict: The key was used with another action or other arguments.
            DatabaseUnavailable: The records cannot be read or written. An effect that cannot be recorded
                first is not made.
        """
        ...


class UnrecordedEffects:
    """Makes each effect without a record; for graphs without the service's database."""

    async def run_once(
        self,
        key: str,  # noqa: ARG002 - defined by the port
        action: str,  # noqa: ARG002
        arguments: Arguments,  # noqa: ARG002
        do: Callable[[], Awaitable[Outcome]],
    ) -> Outcome:
        """Make the effect."""
        return await do()
