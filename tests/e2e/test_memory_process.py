"""``make memory-serve`` as an operator runs it, and a service pointed at it."""

import asyncio
import re
import signal
import sys
from asyncio.subprocess import Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import SecretStr

from memory.grpc_client import connect_memory
from tests.support.memory_grpc import ANA, make_message, memory_settings
from tests.support.process import PROJECT, launch
from workflows.loader import SafeYAML

COMPOSE = SafeYAML().load((PROJECT / "deploy" / "compose.yaml").read_text("utf-8"))
TOKEN = "a-token"


@asynccontextmanager
async def memory_process(data_dir: Path) -> AsyncIterator[tuple[Process, str]]:
    """Start the process, read its startup message, and stop it at the end if the test has not."""
    settings = {
        "MEMORY_SERVE_PORT": "0",
        "MEMORY_GRPC_TOKEN": TOKEN,
        "EMBEDDING_MODEL": "lexical:hashed-ngrams",
    }
    process = await launch(data_dir, "-m", "service.cli.memory_server", **settings)
    assert process.stdout
    message = ""
    while "make serve" not in message:
        line = (await process.stdout.readline()).decode()
        assert line, (await process.communicate())[1].decode()
        message += line
    try:
        yield process, message
    finally:
        if process.returncode is None:
            process.terminate()
            await process.communicate()


async def is_healthy(address: str) -> bool:
    """Ask as the container of deploy/compose.yaml asks itself."""
    _, _, *arguments = COMPOSE["services"]["memory"]["healthcheck"]["test"]
    command = [argument.replace("127.0.0.1:50051", address) for argument in arguments]
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    await process.communicate()
    return process.returncode == 0


async def test_a_separate_memory_server_keeps_its_data_through_a_restart(tmp_path: Path) -> None:
    for added in (1, 0):
        async with memory_process(tmp_path) as (process, message):
            assert TOKEN not in message
            found = re.search(r"MEMORY_GRPC_TARGET=(\S+) MEMORY_GRPC_TOKEN=\.\.\. make serve", message)
            assert found
            assert await is_healthy(found[1])
            settings = memory_settings(grpc_target=found[1], grpc_token=SecretStr(TOKEN))
            async with connect_memory(settings) as remote:
                await remote.check_health()
                assert await remote.add_messages(ANA, [make_message("m1", "The invoice is wrong")]) == added
                assert [hit.id for hit in (await remote.search(ANA, "invoice")).hits] == ["m1"]
            process.send_signal(signal.SIGTERM)
            _, errors = await process.communicate()
            assert process.returncode == 0, errors.decode()
            assert not await is_healthy(found[1])


async def test_a_memory_server_that_cannot_start_explains_why_in_one_line(tmp_path: Path) -> None:
    listener = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    process = await launch(
        tmp_path,
        "-m",
        "service.cli.memory_server",
        MEMORY_SERVE_PORT=str(port),
        EMBEDDING_MODEL="lexical:hashed-ngrams",
    )
    _, errors = await process.communicate()
    listener.close()
    assert process.returncode == 1
    said_why = [line for line in errors.decode().splitlines() if line.startswith("error: ")]
    assert len(said_why) == 1
    assert f"cannot serve memory on 127.0.0.1:{port}" in said_why[0]
