"""Hand the parts of a run to the caller who waits for them."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from enum import Enum
from typing import Any, Final, TypeAlias, cast

from langgraph.runtime import RunControl

from core.errors import ServiceError
from service.runs.ends import CLIENT_GONE
from service.runs.log.run_log import RunLog
from service.runs.request import RunPart

# Parts that a run may be ahead of its listener.
_BACKLOG: Final = 1_000


class _Signal(Enum):
    ADMITTED = "admitted"
    ENDED = "ended"


_Item: TypeAlias = RunPart | ServiceError | _Signal


class RunListener:
    """Connects the task of a run with the caller who reads its parts and may leave before it ends.

    Args:
        is_detached: Whether the caller wants to hear of the admission only, and the run goes on without it.

    Attributes:
        control: Asks the run to stop at its next step.
        is_admitted: Whether the run was admitted.
        log: The log of the run, once it is admitted.
        response: The text that the run answered with.
        error: How it ended early.
    """

    def __init__(self, *, is_detached: bool) -> None:
        self.control = RunControl()
        self.is_admitted = False
        self.log: RunLog | None = None
        self.response: str | None = None
        self.error: Mapping[str, Any] | None = None
        self._has_left = is_detached
        self._items: asyncio.Queue[_Item] = asyncio.Queue(_BACKLOG)

    async def wait_for_admission(self) -> None:
        """Wait until the run is admitted; raise the error with which it ended before."""
        item = await self._items.get()
        if isinstance(item, ServiceError):
            raise item

    async def parts(self) -> AsyncIterator[RunPart]:
        """Yield the parts of an admitted run; raise the error with which it ended early."""
        while (item := await self._items.get()) is not _Signal.ENDED:
            if isinstance(item, ServiceError):
                raise item
            yield cast("RunPart", item)

    def leave(self, *, stop: bool) -> None:
        """Stop listening, and ask the run to stop unless it goes on without its caller."""
        self._has_left = True
        if stop:
            self.control.request_drain(CLIENT_GONE)
        # Wakes the run where it waits to hand over a part that nobody will take.
        while not self._items.empty():
            self._items.get_nowait()

    def note_pending(self) -> None:
        """Tell a caller whom the run does not need that it waits for its turn."""
        if self._has_left:
            self._items.put_nowait(_Signal.ADMITTED)

    def admit(self) -> None:
        """Tell the caller that the run is admitted."""
        self.is_admitted = True
        self._items.put_nowait(_Signal.ADMITTED)

    async def send(self, part: RunPart) -> None:
        """Hand over a part, waiting while the caller is far behind; a caller who has left gets none."""
        if not self._has_left:
            await self._items.put(part)

    async def end(self) -> None:
        """Tell the caller that the run has reached its end. The last parts are the answer: wait for room."""
        if not self._has_left:
            await self._items.put(_Signal.ENDED)

    def fail(self, error: ServiceError) -> None:
        """Tell the caller how the run ended early, making room: a slow caller does not hold up the run."""
        if self._items.full():
            self._items.get_nowait()
        self._items.put_nowait(error)
