"""Evaluate routing on CLINC150: how often the route is right, and how often an out-of-scope text is noticed.

Ten examples of each of the 150 intents are drawn, five times, and the router that is fitted on them routes
the validation queries. The confidence is calibrated on the examples and the ``oos_train`` queries, as an
operator would do it with the agents' examples and a list of unrelated questions. The out-of-scope queries
that count are those of ``oos_val``.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from benchmarks.data import Clinc150, clinc150
from core.embeddings import Embedder, build_embedder, build_local_embedder
from core.settings import Settings
from nodes.coordinator.classifier import Routing, TrainingTexts, clean_training_texts, fit_classifier

Vectors: TypeAlias = dict[str, list[float]]
Numbers: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

SEEDS: Final = 5
EXAMPLES: Final = 10
KEPT: Final = 0.9
# Published results for comparison; they are not measured here.
PUBLISHED: Final = ("MiniLM, nearest centroid (published)", "88.7", "83", "", "", "")
_BATCH: Final = 64


@dataclass(frozen=True, slots=True)
class Measured:
    """The results of one way to route on one draw of examples; all are shares from 0 to 1."""

    accuracy: float
    outside: float
    outside_by_confidence: float | None = None
    calibration_error: float | None = None
    sure_and_right: float | None = None
    verdicts: tuple[float, float, float, float] | None = None


async def evaluate(folder: Path, console: Console) -> None:
    """Print the table.

    Raises:
        DataMissing: ``clinc150-dev.json`` is not in the folder.
    """
    data = clinc150(folder)
    embedder = build_embedder(Settings.load(), "similarity")
    draws = [_draw(data, seed) for seed in range(SEEDS)]
    texts = {text for draw in draws for text in draw.texts}
    texts |= {text for text, _ in (*data.val, *data.oos_val)}
    with Progress(console=console) as progress:
        start = time.perf_counter()
        vectors = await _embed(embedder, sorted(texts), progress)
        each = (time.perf_counter() - start) / len(texts) * 1_000
        step = progress.add_task("routing", total=SEEDS)
        centroid: list[Measured] = []
        router: list[Measured] = []
        fitting: list[float] = []
        for draw in draws:
            centroid.append(_centroid(draw, data, vectors))
            start = time.perf_counter()
            router.append(_router(draw, data, vectors))
            fitting.append(time.perf_counter() - start)
            progress.advance(step)
    console.print(_table(embedder, centroid, router))
    _print_verdicts(console, router)
    console.print(
        f"{embedder.model}: {each:.1f} ms a text in lists; "
        f"fit and {len(data.val) + len(data.oos_val)} answers: {np.mean(fitting):.1f} s"
    )
    if embedder.model != (local := build_local_embedder("similarity")).model:
        console.print(
            f"(the local model is {local.model}; unset GOOGLE_API_KEY and EMBEDDING_MODEL to measure it)"
        )


def _draw(data: Clinc150, seed: int) -> TrainingTexts:
    """Draw ``EXAMPLES`` utterances of each intent; add the out-of-scope training part."""
    random = np.random.default_rng(seed)
    by_intent: dict[str, list[str]] = {}
    for text, intent in data.train:
        by_intent.setdefault(intent, []).append(text)
    drawn = {
        intent: [texts[place] for place in random.permutation(len(texts))[:EXAMPLES]]
        for intent, texts in sorted(by_intent.items())
    }
    return clean_training_texts(drawn, [text for text, _ in data.oos_train])


async def _embed(embedder: Embedder, texts: Sequence[str], progress: Progress) -> Vectors:
    step = progress.add_task("embedding", total=len(texts))
    vectors: Vectors = {}
    for start in range(0, len(texts), _BATCH):
        batch = texts[start : start + _BATCH]
        vectors |= zip(batch, await embedder.embed_documents(batch), strict=True)
        progress.advance(step, len(batch))
    return vectors


def _router(draw: TrainingTexts, data: Clinc150, vectors: Vectors) -> Measured:
    fitted = fit_classifier(draw, [vectors[text] for text in draw.texts])
    inside, outside = (
        fitted.classify([vectors[text] for text, _ in part], [text for text, _ in part])
        for part in (data.val, data.oos_val)
    )
    right = np.array([each.route == intent for each, (_, intent) in zip(inside, data.val, strict=True)])
    sure = np.array([each.verdict == "sure" for each in inside])
    confidences = _confidences([*inside, *outside])
    return Measured(
        accuracy=float(right.mean()),
        outside=recall_outside(_familiarities(inside), _familiarities(outside), kept=KEPT),
        outside_by_confidence=recall_outside(_confidences(inside), _confidences(outside), kept=KEPT),
        calibration_error=calibration_error(
            confidences, np.concatenate([right, np.zeros(len(outside), np.bool_)])
        ),
        sure_and_right=float(right[sure].mean()),
        verdicts=(
            float(sure.mean()),
            _share(inside, "close"),
            _share(inside, "unknown"),
            _share(outside, "unknown"),
        ),
    )


def _centroid(draw: TrainingTexts, data: Clinc150, vectors: Vectors) -> Measured:
    """Measure the usual baseline: the intent whose mean vector is nearest by cosine."""
    means = _matrix([np.mean([vectors[text] for text in texts], axis=0) for _, texts in draw.by_route])
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    inside = _matrix([vectors[text] for text, _ in data.val]) @ means.T
    outside = _matrix([vectors[text] for text, _ in data.oos_val]) @ means.T
    right: Flags = np.array(
        [draw.routes[place] == intent for place, (_, intent) in zip(inside.argmax(1), data.val, strict=True)]
    )
    return Measured(
        accuracy=float(right.mean()), outside=recall_outside(inside.max(1), outside.max(1), kept=KEPT)
    )


def _matrix(vectors: Sequence[Sequence[float] | NDArray[np.float64]]) -> Numbers:
    return np.asarray(vectors, np.float64)


def _confidences(answers: Sequence[Routing]) -> Numbers:
    return np.array([each.confidence for each in answers])


def _familiarities(answers: Sequence[Routing]) -> Numbers:
    return np.array([each.familiarity for each in answers])


def _share(answers: Sequence[Routing], verdict: str) -> float:
    return sum(each.verdict == verdict for each in answers) / len(answers)


def _table(embedder: Embedder, centroid: Sequence[Measured], router: Sequence[Measured]) -> Table:
    table = Table(
        title=f"Routing on CLINC150, {EXAMPLES} examples an intent, mean ± deviation of {SEEDS} draws, in %",
        caption=f"embeddings: {embedder.model}, {embedder.dimensions} dimensions",
    )
    table.add_column("")
    headings = (
        "accuracy in scope",
        f"out of scope found, {KEPT:.0%} kept",
        "the same by confidence",
        "calibration error",
        "sure answers right",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    table.add_row(*PUBLISHED)
    table.add_row("nearest centroid", *_cells(centroid))
    table.add_row("router", *_cells(router))
    return table


def _cells(measured: Sequence[Measured]) -> list[str]:
    return [
        _cell([each.accuracy for each in measured]),
        _cell([each.outside for each in measured]),
        _cell([each.outside_by_confidence for each in measured]),
        _cell([each.calibration_error for each in measured]),
        _cell([each.sure_and_right for each in measured]),
    ]


def _cell(shares: Sequence[float | None]) -> str:
    known = [100 * share for share in shares if share is not None]
    return f"{np.mean(known):.1f} ± {np.std(known):.1f}" if known else ""


def _print_verdicts(console: Console, router: Sequence[Measured]) -> None:
    sure, close, unknown, found = np.mean([each.verdicts for each in router if each.verdicts], axis=0)
    console.print(
        f"in scope: sure {sure:.1%}, close {close:.1%}, unknown {unknown:.1%}; "
        f"out of scope: unknown {found:.1%}"
    )


def recall_outside(inside: Numbers, outside: Numbers, *, kept: float) -> float:
    """Return the share of out-of-scope texts below the threshold that keeps ``kept`` of those in scope."""
    return float((outside < np.quantile(inside, 1 - kept)).mean())


def calibration_error(confidences: Numbers, right: Flags, *, bins: int = 15) -> float:
    """Return the expected calibration error (Guo et al. 2017, arXiv:1706.04599) over bins of equal width."""
    which = np.minimum((confidences * bins).astype(int), bins - 1)
    return sum(
        abs(float(confidences[which == each].mean()) - float(right[which == each].mean()))
        * float((which == each).mean())
        for each in np.unique(which)
    )
