"""Let calls that come at the same time share one call of what has a cost of its own, such as a statement."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Final, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")

# The most calls that share one.
MAX_GROUP: Final = 100


class Batcher(Generic[Item, Result]):
    """Hands items to a function in groups; while one group is handled, the next one gathers.

    A lone call therefore waits for nothing, and under load a group has as many items as came meanwhile.

    Args:
        handle: Returns a result for each item, in their order. A result that is an exception is raised to the
            item's caller.
        is_shared: Whether an error of a group concerns all of it. After another one, each item is handled
            alone, so that none fails for another's sake: a group that failed must have had no effect.
    """

    def __init__(
        self,
        handle: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        *,
        is_shared: Callable[[Exception], bool],
    ) -> None:
        self._handle = handle
        self._is_shared = is_shared
        self._waiting: list[tuple[Item, asyncio.Future[Result]]] = []
        self._task: asyncio.Task[None] | None = None

    async def call(self, item: Item) -> Result:
        """Have an item handled and return its result.

        An item whose caller is cancelled before its group's turn is not handled.
        """
        done: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, done))
        if self._task is None:
            # An empty context, because the task must not keep the first caller's tracing and request id.
            self._task = asyncio.create_task(self._run(), context=Context())
        return await done

    async def _run(self) -> None:
        try:
            while self._waiting:
                group = [(item, done) for item, done in self._waiting[:MAX_GROUP] if not done.done()]
                del self._waiting[:MAX_GROUP]
                if group:
                    await self._handle_group(group)
        finally:
            self._task = None
            for _, done in self._waiting:
                # Only where the event loop ends with calls in progress.
                done.cancel()

    async def _handle_group(self, group: Sequence[tuple[Item, asyncio.Future[Result]]]) -> None:
        results: Sequence[Result | Exception]
        try:
            results = await self._handle([item for item, _ in group])
        except Exception as error:  # noqa: BLE001 - it is raised to the callers
            if len(group) > 1 and not self._is_shared(error):
                for one in group:
                    await self._handle_group([one])
                return
            results = [error] * len(group)
        except BaseException:
            for _, done in group:
                done.cancel()
            raise
        for (_, done), result in zip(group, results, strict=True):
            if done.done():
                continue
            if isinstance(result, Exception):
                done.set_exception(result)
            else:
                done.set_result(result)
