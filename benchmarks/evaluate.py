"""``make eval DATA=folder``: every evaluation, one after the other."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import knowledge, retrieval, routing
from benchmarks.data import DataMissing

# Each takes the folder of the data and prints what it measured.
EVALUATIONS: Final[Mapping[str, Callable[[Path, Console], Awaitable[None]]]] = {
    "routing": routing.evaluate,
    "memory": retrieval.evaluate,
    "knowledge": knowledge.evaluate,
}


async def evaluate(names: list[str], folder: Path, console: Console) -> None:
    """Run the named evaluations, or all of them if none is named.

    Raises:
        DataMissing: The folder does not hold what an evaluation needs.
    """
    for name in names or EVALUATIONS:
        await EVALUATIONS[name](folder, console)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make eval", description="Measure the service on public data sets.")
    parser.add_argument(
        "--data", type=Path, default=Path(), help="folder with clinc150-dev.json and locomo-dev.json"
    )
    parser.add_argument("only", nargs="*", help=f"of {', '.join(EVALUATIONS)}; all when none is named")
    given = parser.parse_args()
    unknown = [name for name in given.only if name not in EVALUATIONS]
    if unknown:
        sys.exit(f"error: there is no evaluation {unknown[0]!r}; there are {', '.join(EVALUATIONS)}")
    try:
        asyncio.run(evaluate(given.only, given.data, Console()))
    except DataMissing as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
