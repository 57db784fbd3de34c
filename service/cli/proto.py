"""``make proto``: generate ``memory/proto`` from ``memory/memory.proto``.

This is for developers: it needs grpcio-tools and mypy-protobuf, which the service does not.
"""

import subprocess
import sys
from pathlib import Path
from typing import Final

PROJECT: Final = Path(__file__).resolve().parents[2]
PLUGINS: Final = ("mypy", "mypy_grpc")


def generate_proto(folder: Path) -> None:
    """Write ``memory/proto/memory_pb2*`` below a folder.

    Args:
        folder: The project's own, or another one to compare with it.

    Raises:
        subprocess.CalledProcessError: The proto is invalid; protoc has printed why.
    """
    programs = Path(sys.executable).parent
    command = [
        sys.executable,
        "-m",
        "grpc_tools.protoc",
        # Makes the generated modules import each other by the name of their package.
        "-Imemory/proto=memory",
        *(f"--plugin=protoc-gen-{name}={programs / f'protoc-gen-{name}'}" for name in PLUGINS),
        *(f"--{name}_out={folder}" for name in ("python", "grpc_python")),
        *(f"--{name}_out=quiet:{folder}" for name in PLUGINS),
        "memory/memory.proto",
    ]
    subprocess.run(command, cwd=PROJECT, check=True)  # noqa: S603 - a fixed command


if __name__ == "__main__":
    generate_proto(PROJECT)
