"""The data sets, read from a folder that is not part of the project."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NotRequired, TypeAlias, TypeVar

from pydantic import TypeAdapter, ValidationError
from typing_extensions import TypedDict

Labelled: TypeAlias = tuple[str, str]
Data = TypeVar("Data")


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
    return _read(TypeAdapter(Clinc150), folder / "clinc150-dev.json", "CLINC150")


class LocomoTurn(TypedDict):
    """One turn; ``dia_id`` is ``D<session>:<turn>``."""

    speaker: str
    dia_id: str
    text: str
    blip_caption: NotRequired[str]


class LocomoQuestion(TypedDict):
    """A question and its evidence.

    Categories: 1 multi-hop, 2 temporal, 3 open domain, 4 single-hop, 5 unanswerable.
    """

    question: str
    category: int
    evidence: list[str]


class LocomoSample(TypedDict):
    """A conversation: ``session_N`` and ``session_N_date_time`` for each session, and two speakers."""

    sample_id: str
    conversation: dict[str, str | list[LocomoTurn]]
    qa: list[LocomoQuestion]


def locomo(folder: Path) -> list[LocomoSample]:
    """Read ``locomo-dev.json`` (Maharana et al. 2024, arXiv:2402.17753).

    Raises:
        DataMissing: It is not there, or it is something else.
    """
    return _read(TypeAdapter(list[LocomoSample]), folder / "locomo-dev.json", "LoCoMo")


def _read(kind: TypeAdapter[Data], path: Path, name: str) -> Data:
    if not path.is_file():
        raise DataMissing(
            f"{path} does not exist; name the folder that has it: make eval DATA=/path/to/data. "
            "benchmarks/README.md says what must be in it"
        )
    try:
        return kind.validate_python(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise DataMissing(f"{path} is not {name} as JSON ({reason})") from error
