"""Start the console beside the service. It is a process of its own and a client like any other."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from core.logging import get_logger
from core.settings import Settings

log = get_logger(__name__)

# It holds nothing that would have to be saved.
_STOP_SECONDS = 3.0


@contextmanager
def run_console(settings: Settings) -> Iterator[None]:
    """Run the console while the context is open, where the settings have one.

    A console that cannot start, because its port is taken, says so and leaves the service alone.
    """
    server = settings.server
    if not server.console_url:
        yield
        return
    # It is given nothing else, so that it has none of the service's secrets.
    environment = {
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
