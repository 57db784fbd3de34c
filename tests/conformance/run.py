"""``make conformance``: run the integration tests of the pinned LangGraph client against this service.

The tests and their graphs are in the client's source distribution, which is downloaded to a temporary folder;
nothing of it is kept.
"""

import os
import re
import signal
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError

ROOT = Path(__file__).parents[2]
# As many as the client's version has; fewer mean that some were not found.
EXPECTED_TESTS = 55
START_SECONDS = 120.0
PYTHON = sys.executable


def read_pinned_version() -> str:
    """Return the version of the client that this project is pinned to."""
    pins = (ROOT / "requirements.txt").read_text()
    found = re.search(r"^langgraph-sdk==(\S+)", pins, re.MULTILINE)
    if found is None:
        sys.exit("error: requirements.txt pins no langgraph-sdk")
    return found[1]


def download(version: str, folder: Path) -> Path:
    """Download the client's source distribution and return its unpacked folder."""
    command = [PYTHON, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "langgraph-sdk"]
    subprocess.run([*command, "--dest", folder, f"langgraph-sdk=={version}"], check=True)
    [archive] = folder.glob("*.tar.gz")
    with tarfile.open(archive) as opened:
        opened.extractall(folder, filter="data")
    return folder / archive.name.removesuffix(".tar.gz")


@contextmanager
def serve(source: Path, folder: Path) -> Iterator[str]:
    """Serve the client's graphs in a process of its own, and yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    environment = {
        **os.environ,
        "DATA_DIR": str(folder / "data"),
        "PORT": str(port),
        "LOG_LEVEL": "warning",
        "LANGSMITH_TRACING": "false",
    }
    command = [PYTHON, "-m", "tests.conformance.server", str(source / "integration")]
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            _wait_until_ready(process, url)
            yield url
        except BaseException:
            print(f"--- the service's log\n{(folder / 'log').read_text()[-20_000:]}", file=sys.stderr)
            raise
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)


def _wait_until_ready(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + START_SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(f"{url}/ok", timeout=2):
                return
        except (URLError, OSError):
            time.sleep(0.2)
    raise RuntimeError("the service did not start")


def run_tests(source: Path, url: str, arguments: list[str]) -> None:
    """Run the tests.

    Raises:
        RuntimeError: A test failed, was skipped, or was not found.
    """
    plugin = ["-p", "tests.conformance.plugin", "-p", "no:xdist", "-p", "no:syrupy"]
    command = [
        PYTHON,
        "-m",
        "pytest",
        *plugin,
        "-m",
        "integration",
        "-q",
        "--timeout=60",
        "tests/integration",
    ]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "LANGGRAPH_INTEGRATION_URL": url}
    done = subprocess.run(
        [*command, *arguments], cwd=source, env=environment, stdout=subprocess.PIPE, text=True, check=False
    )
    print(done.stdout, flush=True)
    passed = re.search(r"(\d+) passed", done.stdout)
    count = int(passed[1]) if passed else 0
    print(f"conformance: {count} of {EXPECTED_TESTS} tests passed")
    if done.returncode or (count != EXPECTED_TESTS and not arguments):
        raise RuntimeError("the service does not conform to LangGraph's client")


def main() -> int:
    """Return 0 if all tests passed."""
    version = read_pinned_version()
    with tempfile.TemporaryDirectory(prefix="conformance-") as name:
        folder = Path(name)
        print(f"==> the integration tests of langgraph-sdk {version}", flush=True)
        source = download(version, folder)
        try:
            with serve(source, folder) as url:
                run_tests(source, url, sys.argv[1:])
        except RuntimeError as error:
            print(f"error: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
