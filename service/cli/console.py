"""Start the console beside the service. It is a process of its own and a client like any other."""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from core.logging import get_logger
from core.settings import Settings

log = get_logger(__name__)

# It holds nothing that would have to be saved.
_STOP_SECONDS = 3.0


def get_console_url(settings: Settings) -> str:
    """Return where the console is that is started beside the service; empty: none is started."""
    server = settings.server
    # Where the service picks a free port, the console could not be told it.
    if not (server.console and server.console_python and server.port):
        return ""
    return f"http://127.0.0.1:{server.console_port}"


@contextmanager
def run_console(settings: Settings) -> Iterator[None]:
    """Run the console while the context is open, where the settings have one.

    A console that cannot start, because its port is taken, says so and leaves the service alone.
    """
    server = settings.server
    if not get_console_url(settings):
        yield
        return
    environment = {
        **os.environ,
        "SERVICE_URL": f"http://127.0.0.1:{server.port}",
        "CONSOLE_HOST": "127.0.0.1",
        "CONSOLE_PORT": str(server.console_port),
    }
    process = subprocess.Popen([str(server.console_python), "-m", "console"], env=environment)  # noqa: S603 - ours
    log.info("console_started", port=server.console_port, pid=process.pid)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
