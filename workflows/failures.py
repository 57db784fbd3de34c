"""Which failures stopped a workflow."""

from workflows.outline import Outline, Place
from workflows.results import Results, step_of


def blocking(outline: Outline, results: Results) -> list[str]:
    """Keys of the records that failed where nothing says that they may, in the order they ended."""
    return [
        key
        for key, record in results.items()
        if record["status"] == "failed" and not _may_fail(outline, outline[step_of(key)])
    ]


def last_failure(results: Results) -> str:
    """Which step failed last, and why."""
    key, record = [(key, record) for key, record in results.items() if record["status"] == "failed"][-1]
    return f"{key}: {record['error']}"


def causes(outline: Outline, failed: list[str]) -> list[str]:
    """Those of them that did not fail for one inside them."""
    inside = {pattern for key in failed for pattern in _around(outline, key)}
    return [key for key in failed if key not in inside]


def _may_fail(outline: Outline, place: Place) -> bool:
    patterns = [place.step.id, *(pattern for pattern, _ in place.around)]
    return any(outline[pattern].step.on_error == "skip" for pattern in patterns)


def _around(outline: Outline, key: str) -> list[str]:
    """Keys of the records of the patterns around it, and of their items that it is in."""
    step_id, _, rest = key.partition("[")
    turns = [f"[{turn}" for turn in rest.split("[")] if rest else []
    keys = []
    for pattern in (*(name for name, _ in outline[step_id].around), step_id):
        depth = len(outline[pattern].turns)
        keys += [pattern + "".join(turns[:length]) for length in range(depth, min(depth + 1, len(turns)) + 1)]
    return [around for around in keys if around != key]
