"""The data sets, read from a folder that is not part of the project."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from pydantic import TypeAdapter, ValidationError

Labelled: TypeAlias = tuple[str, str]


class DataMissing(Exception):
    """Raise when the folder does not hold what an evaluation needs; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Clinc150:
    """CLINC150 (Larson et al. 2019, arXiv:1909.02027), training and validation parts: text and intent."""

    train: list[Labelled]
    val: list[Labelled]
    oos_train: list[Labelled]
    oos_val: list[Labelled]


def clinc150(folder: Path) -> Clinc150:
    """Read ``clinc150-dev.json``.

    Raises:
        DataMissing: It is not there, or it is something else.
    """
    path = folder / "clinc150-dev.json"
    if not path.is_file():
        raise DataMissing(
            f"{path} does not exist; name the folder that has it: make eval DATA=/path/to/data. "
            "benchmarks/README.md says what must be in it"
        )
    try:
        return TypeAdapter(Clinc150).validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DataMissing(f"{path} is not CLINC150 as JSON ({reason})") from error
