"""Background tasks: what repeats survives a failed pass, and what dies is restarted."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial

import psycopg
import pytest

from core.tasks import Backoff, Supervisor, TaskStatus, background, periodic
from tests.support.waiting import until

NO_PAUSE = Backoff(first=0, longest=0)


def passes(*outcomes: Exception | None) -> tuple[list[int], Callable[[], Awaitable[None]]]:
    """A pass that has these outcomes in order and then goes well, and the numbers of the passes so far."""
    done: list[int] = []

    async def run_pass() -> None:
        done.append(len(done))
        if len(done) <= len(outcomes) and (error := outcomes[len(done) - 1]):
            raise error
        await asyncio.sleep(0)

    return done, run_pass


async def test_a_pass_is_repeated_after_each_pause() -> None:
    done, run_pass = passes()
    async with Supervisor().supervise("sweep", partial(periodic, "sweep", run_pass, seconds=0)):
        await until(lambda: len(done) >= 3)


async def test_the_first_pass_comes_after_a_pause_unless_it_is_wanted_at_once() -> None:
    done, run_pass = passes()
    async with Supervisor().supervise("sweep", partial(periodic, "sweep", run_pass, seconds=1_000)):
        for _ in range(5):
            await asyncio.sleep(0)
        assert not done
    task = partial(periodic, "sweep", run_pass, seconds=1_000, at_once=True)
    async with Supervisor().supervise("sweep", task):
        await until(lambda: bool(done))


async def test_a_wake_up_ends_a_pause_and_none_is_lost_while_a_pass_runs() -> None:
    wake, done = asyncio.Event(), 0

    async def run_pass() -> None:
        nonlocal done
        done += 1
        if done == 2:
            wake.set()

    task = partial(periodic, "sweep", run_pass, seconds=1_000, at_once=True, wake=wake)
    async with Supervisor().supervise("sweep", task):
        await until(lambda: done == 1)
        wake.set()
        await until(lambda: done == 3)


async def test_an_outage_is_a_single_warning_and_its_end_is_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    gone = psycopg.OperationalError("the server closed the connection")
    done, run_pass = passes(gone, gone, gone)
    supervisor = Supervisor()
    caplog.set_level("INFO")
    async with supervisor.supervise("sweep", partial(periodic, "sweep", run_pass, seconds=0)):
        await until(lambda: len(done) >= 5)
        assert supervisor.statuses()["sweep"] == TaskStatus("running", 0, "OperationalError")
    assert caplog.text.count("background_task_waits") == 1
    assert "the server closed the connection" in caplog.text
    assert "background_task_recovered" in caplog.text
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize("bug", [ValueError("a bug"), psycopg.errors.UndefinedColumn("no such column")])
async def test_a_bug_in_a_pass_is_an_error_with_its_traceback_each_time_and_stops_nothing(
    bug: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    done, run_pass = passes(bug, bug)
    async with Supervisor().supervise("sweep", partial(periodic, "sweep", run_pass, seconds=0)):
        await until(lambda: len(done) >= 4)
    assert caplog.text.count("background_pass_failed") == 2
    assert "background_task_waits" not in caplog.text


async def test_the_status_says_that_the_latest_pass_failed() -> None:
    async def run_pass() -> None:
        raise ValueError("a bug")

    supervisor = Supervisor()
    task = partial(periodic, "sweep", run_pass, seconds=1_000, at_once=True)
    async with supervisor.supervise("sweep", task):
        await until(lambda: supervisor.statuses()["sweep"] == TaskStatus("failing", 0, "ValueError"))


async def test_failed_passes_are_further_and_further_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float, *_: object) -> None:
        pauses.append(seconds)
        await asyncio.sleep(0)

    monkeypatch.setattr("core.tasks._pause", pause)
    done, run_pass = passes(*[OSError("gone")] * 4)
    task = partial(periodic, "sweep", run_pass, seconds=9, at_once=True, backoff=Backoff(1, 4))
    async with Supervisor().supervise("sweep", task):
        await until(lambda: len(done) >= 6)
    assert pauses[:5] == [1, 2, 4, 4, 9]


async def test_a_task_that_dies_is_restarted_and_its_status_says_so(caplog: pytest.LogCaptureFixture) -> None:
    starts = 0

    async def work() -> None:
        nonlocal starts
        starts += 1
        if starts < 3:
            raise ValueError(f"death {starts}")
        await asyncio.Event().wait()

    supervisor = Supervisor(NO_PAUSE)
    async with supervisor.supervise("fragile", work):
        await until(lambda: starts == 3)
        assert supervisor.statuses() == {"fragile": TaskStatus("running", 2, "ValueError")}
    assert supervisor.statuses() == {}
    assert caplog.text.count("background_task_died") == 2
    assert "death 1" in caplog.text


async def test_restarts_are_further_apart_until_a_task_has_run_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    now, starts = 0.0, 0

    async def pause(seconds: float, *_: object) -> None:
        pauses.append(seconds)

    async def work() -> None:
        nonlocal now, starts
        starts += 1
        if starts == 7:
            await asyncio.Event().wait()
        # The fifth run lasts.
        now += 1_000 if starts == 5 else 1
        raise ValueError("again")

    monkeypatch.setattr("core.tasks._pause", pause)
    supervisor = Supervisor(Backoff(first=1, longest=4), clock=lambda: now)
    async with supervisor.supervise("fragile", work):
        await until(lambda: starts == 7)
    assert pauses == [1, 2, 4, 4, 1, 2]


async def test_a_task_that_waits_for_its_restart_is_reported_and_can_be_closed() -> None:
    async def work() -> None:
        raise ValueError("at once")

    supervisor = Supervisor(Backoff(first=1_000, longest=1_000))
    async with supervisor.supervise("dead", work):
        await until(lambda: supervisor.statuses()["dead"].state == "restarting")


async def test_a_task_that_returns_is_finished_and_not_restarted() -> None:
    async def work() -> None:
        await asyncio.sleep(0)

    supervisor = Supervisor()
    async with supervisor.supervise("once", work) as task:
        await task
        assert supervisor.statuses()["once"].state == "finished"


async def test_two_running_tasks_cannot_have_the_same_name() -> None:
    supervisor = Supervisor()
    async with supervisor.supervise("one", asyncio.Event().wait):  # type: ignore[arg-type]  # never returns
        with pytest.raises(ValueError, match="running already"):
            async with supervisor.supervise("one", asyncio.Event().wait):  # type: ignore[arg-type]
                raise AssertionError("a second")


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    lost = 0

    async def work() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost > 1:
                    raise

    async with asyncio.timeout(60), Supervisor().supervise("stubborn", work) as task:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    assert (task.cancelled(), lost) == (True, 2)


async def test_a_task_that_failed_by_itself_is_in_the_log_and_stops_nobody_from_closing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        raise ValueError("on its own")

    async with background(work(), "failing") as task:
        await asyncio.wait([task])
    assert isinstance(task.exception(), ValueError)
    assert "background_task_died" in caplog.text
    assert "failing" in caplog.text
    assert "on its own" in caplog.text
