"""Serve in one process, or in ``WORKERS`` of them under a supervisor: ``make serve``.

The supervisor holds what the processes share, the bound socket and the embedded Postgres. It starts them,
replaces those that die, and passes signals on. It forks them after all imports, so that a process starts
without the seconds that imports take, and shares their memory. For that it has neither threads nor a loop.
"""

import asyncio
import os
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.context import ForkProcess
from pathlib import Path
from typing import Final

from checkpoints.embedded import MAX_CONNECTIONS, run_embedded_postgres
from core.errors import StartupError
from core.logging import configure_logging, get_logger
from core.models import ChatModels
from core.settings import Settings
from core.tasks import Backoff
from service.cli.console import run_console
from service.cli.running import report_exit, run_in_loop
from service.cli.serve import (
    RunningServer,
    Shared,
    build_startup_message,
    listen,
    serve_until_signal,
    tune_garbage_collector,
)
from service.observability.peers import Peers

log = get_logger(__name__)

# Before a process that died is replaced. One that served for so long has not died because of its start.
BACKOFF: Final = Backoff(first=0.5, longest=30)
STEADY_SECONDS: Final = 60.0
# Connections of a process beside its pool: the writer of checkpoints, the watch of the database, and the
# listeners of runs and of the task queue's two kinds of jobs.
CONNECTIONS_BESIDE_POOL: Final = 5
# Postgres keeps these for superusers.
_RESERVED_CONNECTIONS: Final = 3
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Announce = Callable[[str, str], None]


def main() -> int:
    """Serve until SIGINT or SIGTERM; see :func:`service.cli.running.report_exit`."""
    return report_exit(serve)


def serve(settings: Settings) -> None:
    """Serve in as many processes as the settings say.

    Raises:
        StartupError: The service cannot start; the message is what to print.
    """
    with run_console(settings):
        if settings.server.workers == 1:
            run_in_loop(serve_until_signal(settings))
        else:
            supervise(settings)


def supervise(settings: Settings, models: ChatModels | None = None, announce: Announce | None = None) -> None:
    """Serve in ``WORKERS`` processes until SIGINT or SIGTERM.

    Args:
        settings: What to open and where to listen.
        models: Replace the models the settings name.
        announce: Called with the startup message and the address when all processes are ready; by default,
            the message is printed.

    Raises:
        StartupError: The service cannot start, or a process did not end cleanly.
        asyncio.CancelledError: It was stopped during its start.
    """
    with ExitStack() as stack:
        signals = stack.enter_context(_Signals.receive())
        listener = stack.enter_context(listen(settings))
        embedded_url = None
        if not settings.database.url:
            _require_connections(settings)
            embedded_url = stack.enter_context(run_embedded_postgres(settings.server.data_dir))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ventros-agents-")))
        tune_garbage_collector()
        group = _Group(settings, models, signals, listener, embedded_url, folder)
        # Whatever happens, no process outlives the supervisor or its database.
        stack.callback(group.kill)
        message, url = group.start()
        (announce or _print_message)(message, url)
        group.keep()


def _require_connections(settings: Settings) -> None:
    processes, pool = settings.server.workers, settings.database.pool_max_size
    if processes * (pool + CONNECTIONS_BESIDE_POOL) > MAX_CONNECTIONS - _RESERVED_CONNECTIONS:
        raise StartupError(
            f"WORKERS={processes} with DATABASE_POOL_MAX_SIZE={pool} need more than the {MAX_CONNECTIONS} "
            "connections of the embedded Postgres; lower one of them, or set DATABASE_URL"
        )


def _print_message(message: str, _url: str) -> None:
    print(message, flush=True)  # noqa: T201 - the operator's terminal


@dataclass(slots=True)
class _Signals:
    """Counts the signals that ask to stop, and wakes whoever waits.

    Attributes:
        wakeup: Readable when there was a signal.
        count: How many there were.
    """

    wakeup: socket.socket
    count: int = 0

    @classmethod
    @contextmanager
    def receive(cls) -> Iterator["_Signals"]:
        reader, writer = socket.socketpair()
        for end in (reader, writer):
            end.setblocking(False)  # noqa: FBT003
        signals = cls(reader)
        before = {number: signal.signal(number, signals._note) for number in _SIGNALS}
        signal.set_wakeup_fd(writer.fileno())
        try:
            with reader, writer:
                yield signals
        finally:
            signal.set_wakeup_fd(-1)
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, _number: int, _frame: object) -> None:
        self.count += 1

    def clear(self) -> None:
        """Make ``wakeup`` unreadable until the next signal."""
        with suppress(BlockingIOError):
            self.wakeup.recv(64)


@dataclass(slots=True)
class _Worker:
    """A process that serves.

    Attributes:
        number: Which one it is, from 1.
        process: The process; ``None``: it died, and is not replaced yet.
        report: What it says of its start; ``None``: it has said it.
        started_at: When it was started, in monotonic seconds.
        failures: Deaths in a row.
        replace_at: When the next process takes its place.
        is_ready: Whether it serves.
    """

    number: int
    process: ForkProcess | None = None
    report: Connection | None = None
    started_at: float = 0.0
    failures: int = 0
    replace_at: float = 0.0
    is_ready: bool = False


@dataclass(frozen=True, slots=True)
class _Report:
    """What a process says of its start: the startup message and the address, or why it cannot start."""

    message: str = ""
    url: str = ""
    error: str = ""


@dataclass(slots=True)
class _Group:
    """The processes, and what they share."""

    settings: Settings
    models: ChatModels | None
    signals: _Signals
    listener: socket.socket
    embedded_url: str | None
    folder: Path
    workers: list[_Worker] = field(default_factory=list)
    is_starting: bool = True
    # Held by the supervisor alone: when it dies, the processes read the end of the other one, and stop.
    lifeline: tuple[int, int] = field(default_factory=os.pipe)

    def start(self) -> tuple[str, str]:
        """Start all processes, and return the startup message and the address when all are ready.

        Raises:
            StartupError: One cannot start.
            asyncio.CancelledError: There was a signal.
        """
        self.workers = [_Worker(number) for number in range(1, self.settings.server.workers + 1)]
        for worker in self.workers:
            self._fork(worker)
        first = _Report()
        while not all(worker.is_ready for worker in self.workers):
            first = next((report for report in self._wait(None) if report.message), first)
            if self.signals.count:
                raise asyncio.CancelledError
        self.is_starting = False
        return first.message, first.url

    def keep(self) -> None:
        """Replace processes that die, until a signal; then wait for all to drain.

        Raises:
            StartupError: One did not end cleanly.
        """
        while not self.signals.count:
            due = [worker.replace_at for worker in self.workers if not worker.process]
            self._wait(max(0.0, min(due) - time.monotonic()) if due else None)
            for worker in self.workers:
                if not worker.process and worker.replace_at <= time.monotonic() and not self.signals.count:
                    self._fork(worker)
        self._drain()

    def kill(self) -> None:
        """End what is still there."""
        for worker in self.workers:
            if worker.process:
                worker.process.kill()
                worker.process.join()

    def _drain(self) -> None:
        # The processes alone decide how long the port answers.
        self.listener.close()
        running = [worker.process for worker in self.workers if worker.process]
        passed_on = 0
        while alive := [process for process in running if process.is_alive()]:
            while passed_on < self.signals.count:
                passed_on += 1
                for process in alive:
                    process.terminate()
            wait([*(process.sentinel for process in alive), self.signals.wakeup])
            self.signals.clear()
        codes = {process.exitcode for process in running} - {0}
        if codes:
            raise StartupError(f"processes ended with {', '.join(map(str, codes))} when they were stopped")

    def _fork(self, worker: _Worker) -> None:
        report, child_report = get_context("fork").Pipe(duplex=False)
        peers = Peers(number=worker.number, count=self.settings.server.workers, folder=self.folder)
        shared = Shared(listener=self.listener, embedded_url=self.embedded_url, peers=peers)
        process = get_context("fork").Process(
            target=self._run, args=(shared, child_report), name=f"worker-{worker.number}"
        )
        # Until the child has its own handlers, a signal waits.
        signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
        try:
            process.start()
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        child_report.close()
        worker.process, worker.report = process, report
        worker.started_at, worker.is_ready = time.monotonic(), False

    def _wait(self, seconds: float | None) -> list[_Report]:
        """Wait for a signal, a report or the end of a process, and return the reports.

        Raises:
            StartupError: A process ended while the service starts.
        """
        reports: list[_Report] = []
        waiting = [worker.report for worker in self.workers if worker.report is not None]
        processes = [worker.process.sentinel for worker in self.workers if worker.process]
        ready = wait([*waiting, *processes, self.signals.wakeup], seconds)
        if self.signals.wakeup in ready:
            self.signals.clear()
        for worker in self.workers:
            found = _Report()
            if worker.report is not None and worker.report in ready:
                found = _read(worker.report)
                worker.report.close()
                worker.report, worker.is_ready = None, bool(found.message)
                reports.append(found)
            if worker.process and (found.error or not worker.process.is_alive()):
                worker.process.join()
                self._note_end(worker, found)
        return reports

    def _note_end(self, worker: _Worker, report: _Report) -> None:
        assert worker.process  # noqa: S101 - it has just ended
        code, seconds = worker.process.exitcode, time.monotonic() - worker.started_at
        reason = report.error or f"process {worker.number} ended with {code}"
        worker.process, worker.is_ready = None, False
        if self.is_starting:
            raise StartupError(reason)
        worker.failures = 1 if seconds > STEADY_SECONDS else worker.failures + 1
        pause = BACKOFF.pause(worker.failures)
        worker.replace_at = time.monotonic() + pause
        log.error("worker_ended", worker=worker.number, code=code, reason=reason, replaced_in=pause)

    def _run(self, shared: Shared, report: Connection) -> None:
        """Serve, in the child."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        for number in _SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        os.close(self.lifeline[1])
        configure_logging(self.settings.log, process=shared.peers.number)

        def announce(running: RunningServer) -> None:
            report.send(_Report(message=build_startup_message(running.service, running.url), url=running.url))
            report.close()

        def watch(stop: Callable[[], None]) -> None:
            loop = asyncio.get_running_loop()

            def lose_supervisor() -> None:
                loop.remove_reader(self.lifeline[0])
                stop()

            loop.add_reader(self.lifeline[0], lose_supervisor)

        serving = serve_until_signal(
            self.settings, models=self.models, shared=shared, announce=announce, watch=watch
        )
        try:
            run_in_loop(serving)
        except StartupError as error:
            report.send(_Report(error=error.message))
            sys.exit(1)
        except asyncio.CancelledError:
            sys.exit(1)


def _read(report: Connection) -> _Report:
    try:
        received = report.recv()
    except EOFError:
        # It ended without a word; its log or its exit code says why.
        return _Report()
    return received if isinstance(received, _Report) else _Report()
