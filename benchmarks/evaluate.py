"""``make eval``: every evaluation, one after the other."""

import argparse
import asyncio
import sys
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console

from benchmarks import answers, knowledge, retrieval, routing
from benchmarks.data import DataMissing
from core.errors import StartupError

# Each prints what it measured; those of public data sets take the folder of the data.
EVALUATIONS: Final[Mapping[str, Callable[[Path, Console], Awaitable[None]]]] = {
    "routing": routing.evaluate,
    "memory": retrieval.evaluate,
}
WITHOUT_DATA: Final[Mapping[str, Callable[[Console], Awaitable[None]]]] = {
    "answers": answers.evaluate,
    "knowledge": knowledge.evaluate,
}
NAMES: Final = (*EVALUATIONS, *WITHOUT_DATA)


async def evaluate(names: Sequence[str], folder: Path | None, console: Console) -> None:
    """Run the named evaluations, or all of them if none is named.

    Raises:
        DataMissing: The folder is not named, or does not hold what an evaluation needs.
        StartupError: The service that an evaluation measures cannot start.
    """
    for name in names or NAMES:
        if name in WITHOUT_DATA:
            await WITHOUT_DATA[name](console)
        elif folder is None:
            raise DataMissing(
                f"the evaluation {name!r} needs the folder of the data sets: make eval DATA=/path/to/data; "
                "benchmarks/README.md says what must be in it"
            )
        else:
            await EVALUATIONS[name](folder, console)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="make eval", description="Measure what the service answers, routes and recalls."
    )
    parser.add_argument("--data", type=Path, help="folder with clinc150-dev.json and locomo-dev.json")
    parser.add_argument("only", nargs="*", help=f"of {', '.join(NAMES)}; all when none is named")
    given = parser.parse_args()
    unknown = [name for name in given.only if name not in NAMES]
    if unknown:
        sys.exit(f"error: there is no evaluation {unknown[0]!r}; there are {', '.join(NAMES)}")
    try:
        asyncio.run(evaluate(given.only, given.data, Console()))
    except (DataMissing, StartupError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
