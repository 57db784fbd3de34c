"""Which working steps run, when more are ready than may run at once."""

import asyncio
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Literal, TypeAlias

Policy: TypeAlias = Literal["fifo", "priority", "fair_share"]


@dataclass(slots=True, eq=False)
class _Waiting:
    """A step that waits; ``turn`` is done when it has a slot."""

    workflow: str
    priority: int
    most: int
    arrived: int
    turn: asyncio.Future[None] = field(default_factory=lambda: asyncio.get_running_loop().create_future())


class Slots:
    """The slots of working steps in this process, for all workflows together.

    ``fifo``: who came first. ``priority``: the workflow of the highest priority, then who came first.
    ``fair_share``: the workflow with the fewest slots, then the one served longest ago, so that a small one
    beside a batch of thousands has a slot as soon as one is free (max-min fairness; Bertsekas and Gallager
    1992, "Data Networks", 6.5.2). Steps of one workflow are served as they came.

    Args:
        limit: Most slots taken at once.
        policy: Who is next.
    """

    def __init__(self, limit: int, policy: Policy = "fair_share") -> None:
        self.limit = limit
        self.policy: Policy = policy
        self._queues: dict[str, deque[_Waiting]] = {}
        self._taken: Counter[str] = Counter()
        self._served: dict[str, int] = {}
        self._arrivals = count()
        self._turns = count()
        self._active = self._queued = 0
        self._rank = _RANKS[policy]

    @property
    def active(self) -> int:
        """Slots that are taken."""
        return self._active

    @property
    def queued(self) -> int:
        """Steps that wait for one."""
        return self._queued

    @asynccontextmanager
    async def slot(self, workflow: str, *, priority: int = 0, most: int | None = None) -> AsyncIterator[None]:
        """Hold a slot; who is cancelled while waiting leaves the queue.

        Args:
            workflow: Whose step it is.
            priority: Of the workflow; higher is first.
            most: Slots that this workflow may have at once; None: all.
        """
        waiting = _Waiting(workflow, priority, most or self.limit, next(self._arrivals))
        self._queues.setdefault(workflow, deque()).append(waiting)
        self._queued += 1
        self._serve()
        try:
            await waiting.turn
        except asyncio.CancelledError:
            # The turn may have come in the moment it was cancelled.
            if waiting.turn.cancelled():
                self._queued -= 1
                self._drop_left(workflow)
                self._serve()
            else:
                self._release(workflow)
            raise
        try:
            yield
        finally:
            self._release(workflow)

    def _serve(self) -> None:
        while self._active < self.limit and (waiting := self._next()) is not None:
            self._queues[waiting.workflow].popleft()
            self._queued -= 1
            self._active += 1
            self._taken[waiting.workflow] += 1
            self._served[waiting.workflow] = next(self._turns)
            waiting.turn.set_result(None)
            self._drop_left(waiting.workflow)

    def _next(self) -> _Waiting | None:
        for workflow in [name for name, queue in self._queues.items() if queue[0].turn.cancelled()]:
            self._drop_left(workflow)
        heads = (queue[0] for queue in self._queues.values())
        first = (head for head in heads if self._taken[head.workflow] < head.most)
        return min(first, key=lambda waiting: self._rank(self, waiting), default=None)

    def _release(self, workflow: str) -> None:
        self._active -= 1
        self._taken[workflow] -= 1
        self._forget_if_idle(workflow)
        self._serve()

    def _drop_left(self, workflow: str) -> None:
        """Take those who left from the head of a queue; further back they are met in time."""
        queue = self._queues.get(workflow)
        while queue and queue[0].turn.cancelled():
            queue.popleft()
        self._forget_if_idle(workflow)

    def _forget_if_idle(self, workflow: str) -> None:
        if not self._queues.get(workflow):
            self._queues.pop(workflow, None)
            if not self._taken[workflow]:
                del self._taken[workflow]
                self._served.pop(workflow, None)

    def _by_arrival(self, waiting: _Waiting) -> tuple[int, ...]:
        return (waiting.arrived,)

    def _by_priority(self, waiting: _Waiting) -> tuple[int, ...]:
        return (-waiting.priority, waiting.arrived)

    def _by_share(self, waiting: _Waiting) -> tuple[int, ...]:
        workflow = waiting.workflow
        return (self._taken[workflow], self._served.get(workflow, -1), waiting.arrived)


_RANKS: dict[Policy, Callable[[Slots, _Waiting], tuple[int, ...]]] = {
    "fifo": Slots._by_arrival,  # noqa: SLF001 - its own
    "priority": Slots._by_priority,  # noqa: SLF001
    "fair_share": Slots._by_share,  # noqa: SLF001
}
