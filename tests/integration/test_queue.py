"""The task queue: jobs run, whatever happens to workers and the database, and passes run once for all."""

import asyncio
import sys
from asyncio.subprocess import PIPE
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from procrastinate.exceptions import ConnectorException
from procrastinate.manager import JobManager
from procrastinate.schema import SchemaManager
from psycopg import OperationalError, Rollback
from structlog.testing import capture_logs

from checkpoints.pool import WatchedPool, open_pool, watch_database
from core.errors import ModelRefused
from core.postgres import Pool
from core.settings import DatabaseSettings, QueueSettings
from core.tasks import Backoff, Supervisor
from service.observability.metrics import ServiceMetrics
from service.queue import Retry, TaskQueue, migrate_queue, schema
from service.queue.schema import NEWEST_FILE, list_files
from tests.support.database import database
from tests.support.process import PROJECT
from tests.support.queue import build_queue, fetch_jobs, make_due, until_true, working
from tests.support.scripted import ScriptedChatModel, scripted_models
from tests.support.service import running_service
from tests.support.waiting import until

FOREVER = 86_400.0
AT_ONCE = Retry(backoff=Backoff(first=0, longest=0))


def collecting(*queues: TaskQueue, **options: Any) -> list[int]:
    """Register ``work`` with each queue; return the numbers of the jobs that have run."""
    numbers: list[int] = []

    async def work(number: int) -> None:
        numbers.append(number)

    for queue in queues:
        queue.register("work", work, **options)
    return numbers


async def test_two_replicas_run_each_job_once(pool: Pool) -> None:
    first, second = build_queue(pool), build_queue(pool)
    numbers = collecting(first, second)
    async with working(first, second):
        for number in range(60):
            await first.defer("work", number=number)
        await until(lambda: len(numbers) >= 60)
    assert Counter(numbers) == Counter(range(60))
    assert await fetch_jobs(pool) == []


async def test_jobs_with_the_same_lock_run_one_after_the_other(pool: Pool) -> None:
    first, second = build_queue(pool), build_queue(pool)
    running, order = 0, []

    async def work(number: int) -> None:
        nonlocal running
        running += 1
        assert running == 1
        await asyncio.sleep(0)
        order.append(number)
        running -= 1

    for queue in (first, second):
        queue.register("work", work)
    for number in range(10):
        await first.defer("work", lock="thread-1", number=number)
    async with working(first, second):
        await until(lambda: len(order) == 10)
    assert order == list(range(10))


async def test_a_job_waits_for_its_time_and_a_higher_priority_is_first(pool: Pool) -> None:
    queue = build_queue(pool, concurrency=1)
    numbers = collecting(queue)
    await queue.defer("work", at=datetime.now(UTC) + timedelta(hours=1), number=1)
    await queue.defer("work", number=2)
    await queue.defer("work", priority=5, number=3)
    await queue.run(until_empty=True)
    assert numbers == [3, 2]
    await make_due(pool)
    await queue.run(until_empty=True)
    assert numbers == [3, 2, 1]


async def test_one_job_waits_for_each_queueing_lock_of_a_task(pool: Pool) -> None:
    queue = build_queue(pool)
    numbers = collecting(queue)
    queue.register("other", lambda: asyncio.sleep(0))
    assert await queue.defer("work", queueing_lock="run-1", number=1)
    assert not await queue.defer("work", queueing_lock="run-1", number=2)
    assert await queue.defer("other", queueing_lock="run-1")
    await queue.run(until_empty=True)
    assert numbers == [1]
    assert await queue.defer("work", queueing_lock="run-1", number=3)


async def test_a_job_is_there_when_its_transaction_commits_and_not_otherwise(pool: Pool) -> None:
    queue = build_queue(pool)
    numbers = collecting(queue)
    async with pool.connection() as connection:
        async with connection.transaction():
            assert await queue.defer("work", connection=connection, number=1)
            raise Rollback
        assert await fetch_jobs(pool) == []
        async with connection.transaction():
            assert await queue.defer("work", queueing_lock="a", connection=connection, number=2)
            # A refused job does not end the transaction.
            assert not await queue.defer("work", queueing_lock="a", connection=connection, number=3)
            assert await queue.defer("work", connection=connection, number=4)
            assert await fetch_jobs(pool) == []
    await queue.run(until_empty=True)
    assert sorted(numbers) == [2, 4]


async def test_a_job_of_a_killed_worker_is_run_by_another(database_url: str, pool: Pool) -> None:
    queue, done = build_queue(pool, stalled_seconds=1), asyncio.Event()

    async def work() -> None:
        done.set()

    queue.register("work", work)
    await queue.defer("work", lock="thread-1", queueing_lock="run-1")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.support.hanging_worker", database_url, cwd=PROJECT, stdout=PIPE
    )
    assert process.stdout
    assert await process.stdout.readline() == b"began\n"
    process.kill()
    await process.wait()
    assert [status for _, status, _ in await fetch_jobs(pool)] == ["doing"]
    async with working(queue):
        await done.wait()


async def test_a_requeued_job_gives_way_to_its_twin_that_waits(pool: Pool) -> None:
    queue = build_queue(pool, stalled_seconds=1)
    numbers = collecting(queue)
    await queue.defer("work", queueing_lock="run-1", number=1)
    async with pool.connection() as connection:
        # Its worker is gone.
        await connection.execute("UPDATE procrastinate_jobs SET status = 'doing'")
    await queue.defer("work", queueing_lock="run-1", number=2)
    assert await queue._upkeep.requeue_stalled() == 1
    await queue.run(until_empty=True)
    assert numbers == [2]
    assert await fetch_jobs(pool) == []


async def test_a_failed_job_is_tried_again_until_it_succeeds(pool: Pool) -> None:
    queue = build_queue(pool)
    attempts: list[int] = []

    async def work() -> None:
        attempts.append(len(attempts))
        if len(attempts) < 3:
            raise ModelRefused("not yet")

    queue.register("work", work, retry=AT_ONCE)
    await queue.defer("work")
    while len(attempts) < 3:
        # A retry is due a moment later, by the clock of the database.
        await queue.run(until_empty=True)
    assert attempts == [0, 1, 2]
    assert await fetch_jobs(pool) == []


async def test_a_failed_job_is_retried_in_favour_of_its_twin_that_was_queued_meanwhile(pool: Pool) -> None:
    queue = build_queue(pool, concurrency=1)
    numbers: list[int] = []

    async def work(number: int) -> None:
        numbers.append(number)
        if number == 1:
            assert await queue.defer("work", queueing_lock="run-1", number=2)
            raise ModelRefused("fails")

    queue.register("work", work, retry=AT_ONCE)
    await queue.defer("work", queueing_lock="run-1", number=1)
    await queue.run(until_empty=True)
    assert numbers == [1, 2]
    assert await fetch_jobs(pool) == []


async def test_operators_see_a_job_that_failed_for_good_without_its_arguments(
    pool: Pool, capsys: pytest.CaptureFixture[str]
) -> None:
    metrics = ServiceMetrics()
    queue = build_queue(pool, metrics, stalled_seconds=1)

    async def work(secret: str) -> None:
        raise ModelRefused("the model refuses")

    queue.register("work", work, retry=Retry(backoff=Backoff(first=0, longest=0), attempts=2))
    await queue.defer("work", secret="4111111111111111")
    with capture_logs() as lines:
        await queue.run(until_empty=True)
    failed = [line for line in lines if line["event"] == "job_failed"]
    assert [(line["attempt"], line["reason"]) for line in failed] == [
        (1, "the model refuses"),
        (2, "the model refuses"),
    ]
    assert "4111" not in str(lines) + capsys.readouterr().out
    assert await fetch_jobs(pool) == [("work", "failed", 2)]

    def read(name: str, **labels: str) -> float | None:
        return metrics.registry.get_sample_value(f"ventros_{name}", {"task": "work", **labels})

    await queue.defer("work", secret="5")
    async with working(build_queue(pool, metrics, concurrency=0)):
        await until(lambda: read("jobs_waiting") == 1)
    assert read("jobs_failed") == 1
    assert (read("jobs_oldest_waiting_seconds") or 0) > 0
    assert read("jobs_total", outcome="failed") == 2


async def test_failed_jobs_are_deleted_after_their_days(pool: Pool) -> None:
    queue = build_queue(pool)

    async def fail() -> None:
        raise ModelRefused("fails")

    queue.register("work", fail)
    await queue.defer("work")
    await queue.run(until_empty=True)
    await queue._delete_failed()
    assert await fetch_jobs(pool) == [("work", "failed", 1)]
    async with pool.connection() as connection:
        await connection.execute("UPDATE procrastinate_events SET at = at - interval '8 days'")
    await queue._delete_failed()
    assert await fetch_jobs(pool) == []


async def test_a_pass_is_run_by_one_of_two_replicas(pool: Pool) -> None:
    first, second = build_queue(pool), build_queue(pool)
    passes: list[str] = []

    async def run_pass() -> None:
        passes.append("a pass")

    for queue in (first, second):
        queue.every("sweep", run_pass, seconds=FOREVER)
    async with working(first, second):
        await until(lambda: bool(passes))
        for queue in (first, second):
            await until(lambda queue=queue: queue._schedules["sweep"].last_tick)  # type: ignore[misc]
    # Nothing of it waits either.
    await build_queue(pool).run(until_empty=True)
    assert passes == ["a pass"]


async def test_a_pass_is_repeated_even_after_it_has_failed(pool: Pool) -> None:
    queue = build_queue(pool)
    passes: list[int] = []

    async def run_pass() -> None:
        passes.append(len(passes))
        raise RuntimeError("a bug")

    queue.every("sweep", run_pass, seconds=0.01)
    async with working(queue):
        await until(lambda: len(passes) >= 3)
    assert ("sweep", "failed", 1) not in await fetch_jobs(pool)


async def test_passes_do_not_pile_up_while_nobody_works(pool: Pool) -> None:
    idle = build_queue(pool, concurrency=0)
    idle.every("sweep", lambda: asyncio.sleep(0), seconds=0.01)
    async with working(idle):
        ticks: set[int | None] = set()

        def has_ticked() -> bool:
            ticks.add(idle._schedules["sweep"].last_tick)
            return len(ticks) > 5

        await until(has_ticked)
    async with pool.connection() as connection:
        found = await connection.execute("SELECT FROM procrastinate_jobs WHERE task_name = 'sweep'")
        assert found.rowcount == 1


async def test_a_stop_waits_for_jobs_and_leaves_those_that_take_too_long_to_another(pool: Pool) -> None:
    stopping, other = build_queue(pool, drain_seconds=0.1), build_queue(pool)
    begun = asyncio.Event()

    async def hang() -> None:
        begun.set()
        await asyncio.Event().wait()

    stopping.register("work", hang)
    done = asyncio.Event()

    async def finish() -> None:
        done.set()

    other.register("work", finish)
    await stopping.defer("work")
    async with working(stopping):
        await begun.wait()
    assert await fetch_jobs(pool) == [("work", "todo", 1)]
    await other.run(until_empty=True)
    assert done.is_set()


async def test_a_replica_leaves_tasks_that_it_does_not_know_to_newer_ones(pool: Pool) -> None:
    older, newer = build_queue(pool), build_queue(pool)
    numbers = collecting(newer)
    await newer.defer("work", number=1)
    await older.run(until_empty=True)
    assert await fetch_jobs(pool) == [("work", "todo", 0)]
    await newer.run(until_empty=True)
    assert numbers == [1]


async def test_a_job_whose_fetch_was_not_answered_is_run_all_the_same(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = build_queue(pool)
    numbers = collecting(queue)
    await queue.defer("work", number=1)
    fetch, is_cut = JobManager.fetch_job, False

    async def lose_the_answer(self: JobManager, queues: Any, worker_id: int) -> Any:
        nonlocal is_cut
        job = await fetch(self, queues, worker_id)
        if job and not is_cut:
            is_cut = True
            raise ConnectorException from OperationalError("the connection was cut")
        return job

    monkeypatch.setattr(JobManager, "fetch_job", lose_the_answer)
    async with working(queue):
        await until(lambda: numbers == [1])


async def test_an_outage_ends_neither_the_worker_nor_the_job_it_runs(tmp_path: Path) -> None:
    settings = DatabaseSettings(pool_min_size=1, pool_max_size=6, connect_timeout_seconds=2)
    async with database(tmp_path) as db, open_pool(db.url, settings) as pool:
        await migrate_queue(pool)
        queue = build_queue(pool, stalled_seconds=3)
        begun, go_on = asyncio.Event(), asyncio.Event()

        async def work(number: int) -> None:
            runs.append(number)
            begun.set()
            if number == 1:
                await go_on.wait()

        runs: list[int] = []
        queue.register("work", work)
        async with working(queue) as [tasks], watched(pool):
            await queue.defer("work", number=1)
            await begun.wait()
            await db.stop()
            await until(lambda: tasks.statuses()["queue-worker"].state == "failing")
            go_on.set()
            await db.start()
            await until(lambda: tasks.statuses()["queue-worker"].state == "running")
            await until(lambda: not pool.unavailable_reason)
            await queue.defer("work", number=2)
            await until(lambda: 2 in runs)
            assert tasks.statuses()["queue-worker"].restarts == 0

            async def is_empty() -> bool:
                return not await fetch_jobs(pool)

            await until_true(is_empty)
        assert runs == [1, 2]


async def test_a_worker_that_others_took_for_dead_goes_on_with_new_jobs(pool: Pool) -> None:
    queue = build_queue(pool)
    numbers = collecting(queue)
    async with working(queue) as [tasks]:
        await queue.defer("work", number=1)
        await until(lambda: numbers == [1])
        async with pool.connection() as connection:
            await connection.execute("DELETE FROM procrastinate_workers")
        await queue.defer("work", number=2)
        await until(lambda: numbers == [1, 2])
        assert tasks.statuses()["queue-worker"].restarts == 0


def watched(pool: WatchedPool) -> Any:
    return watch_database(pool, Supervisor())


async def test_the_service_shows_the_queue_in_its_metrics(database_url: str) -> None:
    models = scripted_models(ScriptedChatModel())
    async with running_service(database_url, models, queue=QueueSettings()) as running:
        shown = ""
        while 'ventros_jobs_total{outcome="succeeded",task="session-sweep"}' not in shown:
            shown = (await running.http.get("/metrics")).text
        assert 'ventros_jobs_waiting{task="session-summary"} 0.0' in shown


def test_the_migrations_of_procrastinate_were_looked_at() -> None:
    newest = list_files()[-1].name
    assert newest == NEWEST_FILE, f"see the comment on {NEWEST_FILE=}, then set it to {newest}"
    assert "procrastinate_fetch_job_v2" in SchemaManager.get_schema()


async def test_an_upgrade_of_procrastinate_migrates_an_existing_queue(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = schema._FILES
    monkeypatch.setattr(schema, "_FILES", (*files, b"ALTER TABLE procrastinate_jobs ADD COLUMN added text"))
    await migrate_queue(pool)
    await migrate_queue(pool)
    async with pool.connection() as connection:
        assert (await connection.execute("SELECT added FROM procrastinate_jobs")).rowcount == 0
        versions = await connection.execute("SELECT FROM queue.migrations")
        assert versions.rowcount == len(files) + 1


async def test_only_missing_jobs_are_queued_again_and_with_their_locks(pool: Pool) -> None:
    queue = build_queue(pool)
    numbers = collecting(queue)
    await queue.defer("work", lock="thread-1", queueing_lock="run-1", number=1)
    jobs = {f"run-{number}": {"number": number} for number in (1, 2, 3)}
    locks = {f"run-{number}": f"thread-{number}" for number in (1, 2, 3)}
    assert await queue.defer_missing("work", jobs, locks=locks) == 2
    assert await queue.defer_missing("work", jobs, locks=locks) == 0
    async with pool.connection() as connection:
        rows = await (await connection.execute("SELECT lock FROM procrastinate_jobs ORDER BY id")).fetchall()
    assert [row["lock"] for row in rows] == ["thread-1", "thread-2", "thread-3"]
    async with working(queue):
        await until(lambda: len(numbers) >= 3)
    assert sorted(numbers) == [1, 2, 3]


async def test_long_jobs_with_places_of_their_own_hold_up_no_others(pool: Pool) -> None:
    queue, end, begun = build_queue(pool, concurrency=1), asyncio.Event(), []

    async def last(number: int) -> None:
        begun.append(number)
        await end.wait()

    queue.register("long", last, concurrency=2)
    numbers = collecting(queue)
    async with working(queue):
        for number in range(3):
            await queue.defer("long", number=number)
        await until(lambda: len(begun) == 2)
        await queue.defer("work", number=7)
        await until(lambda: numbers)
        assert begun == [0, 1]
        end.set()
        await until(lambda: len(begun) == 3)
