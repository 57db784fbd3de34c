"""``make proto``: generate ``memory/proto`` from ``memory/memory.proto``.

A developer's tool: it needs grpcio-tools and mypy-protobuf, which the service does not.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parent.parent
PLUGINS: Final = ("mypy", "mypy_grpc")


def generate(folder: Path) -> None:
    """Write ``memory/proto/memory_pb2*`` below the folder.

    Args:
        folder: The project's own, or another one to compare with it.

    Raises:
        subprocess.CalledProcessError: The proto has a fault; protoc has said which.
    """
    programs = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        # The generated modules import each other by the name of the package they are in.
        "-Imemory/proto=memory",
        *(f"--plugin=protoc-gen-{name}={programs / f'protoc-gen-{name}'}" for name in PLUGINS),
        *(f"--{name}_out={folder}" for name in ("python", "grpc_python")),
        *(f"--{name}_out=quiet:{folder}" for name in PLUGINS),
        "memory/memory.proto",
    ]
    subprocess.run(command, cwd=PROJECT, check=True)  # noqa: S603 - nothing in it is anybody's input


if __name__ == "__main__":
    generate(PROJECT)
