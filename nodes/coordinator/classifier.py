"""A text classifier that knows when to abstain: fitted once, applied with NumPy, stored on disk.

Kernel ridge regression (Rifkin et al. 2003, "Regularized least-squares classification") over centred sentence
vectors of unit length: every example votes for its route, or for being out of scope, with a weight that falls
with its distance from the text. So the scores of a text that is unlike all examples are near 0, whereas a
linear classifier or a softmax must favour some route even there. Sentence vectors of one domain share a large
common part; removing their mean spreads them (Mu and Viswanath 2018, arXiv:1702.01417). Beside what a text
means stands how it is spelled, as hashed words and pieces of words: names, and words that decide.

Probabilities are logistic regressions on texts that were held out (Platt 1999, "Probabilistic outputs for
support vector machines"). They depend on two numbers: the lead of the best route over being out of scope, and
its margin over the second best route. The task is that of Larson et al. 2019, arXiv:1909.02027 (CLINC150).
"""

import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from core.embeddings.local import LEXICAL_DIMENSIONS, HashedNgrams
from core.errors import StartupError
from core.logging import get_logger

Verdict: TypeAlias = Literal["sure", "close", "unknown"]
Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]

MAX_ALTERNATIVES: Final = 3
IN_SCOPE_KEPT: Final = 0.97  # share of held-out in-scope texts that are not called unknown
SURE_AND_WRONG: Final = 0.02  # largest share of held-out in-scope texts that are called sure and are wrong
OUT_OF_SCOPE_SHARE: Final = 0.1  # assumed share of texts that are out of scope
MIN_CALIBRATION_TEXTS: Final = 20

_FOLDS: Final = 5
_OUT_OF_SCOPE: Final = -1  # label of texts that belong to no route
_MAX_STORED_FILES: Final = 16
# How fast an example's weight falls with the distance, the part of spelling in it, and the strength of
# regularisation. Chosen on held-out training texts of CLINC150 (benchmarks/README.md).
_SHARPNESS: Final = 2.5
_SPELLING: Final = 0.2
_RIDGE: Final = 0.1
# Of the softmax that divides the rest among the other routes, and is the confidence without a calibration.
_TEMPERATURE: Final = 0.1
# scikit-learn's inverse strength of regularisation.
_CALIBRATION_C: Final = 100.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A route and the probability that it is the right one, 0 to 1."""

    route: str
    confidence: float


@dataclass(frozen=True, slots=True)
class Routing:
    """Where a text belongs.

    Attributes:
        route: The most likely route.
        confidence: Probability that the route is right, and so the text in scope, 0 to 1.
        margin: How far the score of the route is above the second best.
        verdict: ``sure``: the route is right; ``close``: a model should decide between the route and the
            alternatives; ``unknown``: the text resembles no example.
        alternatives: The next best routes, best first, at most three.
        familiarity: Probability that the text is in scope at all, never less than ``confidence``. A text
            between two routes has a low confidence and a high familiarity.
    """

    route: str
    confidence: float
    margin: float
    verdict: Verdict
    alternatives: tuple[Candidate, ...]
    familiarity: float


@dataclass(frozen=True, slots=True)
class TrainingTexts:
    """Distinct texts by route, in an order that does not depend on that of the input."""

    by_route: tuple[tuple[str, tuple[str, ...]], ...]
    out_of_scope: tuple[str, ...]

    @property
    def routes(self) -> tuple[str, ...]:
        """Names of the routes, sorted."""
        return tuple(route for route, _ in self.by_route)

    @property
    def texts(self) -> list[str]:
        """All texts: those of the routes, then those out of scope."""
        return [text for _, texts in self.by_route for text in texts] + list(self.out_of_scope)

    @property
    def example_count(self) -> int:
        """Number of texts that belong to a route."""
        return sum(len(texts) for _, texts in self.by_route)

    @property
    def labels(self) -> Labels:
        """The index of the route of each of ``texts``; -1: out of scope."""
        route_labels = [index for index, (_, texts) in enumerate(self.by_route) for _ in texts]
        return np.asarray(route_labels + [_OUT_OF_SCOPE] * len(self.out_of_scope), np.int64)


def clean_training_texts(examples: Mapping[str, Sequence[str]], out_of_scope: Iterable[str]) -> TrainingTexts:
    """Normalise white space, remove duplicates and sort.

    Raises:
        StartupError: There is no route, or a route without an example.
    """
    if not examples:
        raise StartupError("a router needs at least one route with example utterances")
    by_route = tuple((route, _distinct(texts)) for route, texts in sorted(examples.items()))
    for route, texts in by_route:
        if not texts:
            raise StartupError(f"the route {route!r} has no example utterance")
    return TrainingTexts(by_route=by_route, out_of_scope=_distinct(out_of_scope))


def _distinct(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({clean for text in texts if (clean := " ".join(text.split()))}))


@dataclass(frozen=True, slots=True)
class FittedArrays:
    """What fitting learns from ``n`` vectors of ``d`` numbers about ``k`` routes; all that is stored on disk.

    Attributes:
        mean: Mean of the in-scope training vectors, shape ``(d,)``.
        examples: The features of the training texts: meaning and spelling, of unit length together; shape
            ``(n, d + LEXICAL_DIMENSIONS)``.
        votes: What each example adds to the scores of the routes and, last, of being out of scope; shape
            ``(n, k + 1)``.
        correctness: Two slopes, for the lead and the margin, and the intercept of the log odds that the route
            is right; shape ``(3,)``, or ``(0,)`` without a calibration.
        scope: The same for the log odds that the text is in scope; the slope of the margin is 0.
        thresholds: The lead below which a text is unknown, and the margin below which a model should decide;
            shape ``(2,)``, or ``(0,)``.
    """

    mean: Floats
    examples: NDArray[np.float32]
    votes: Floats
    correctness: Floats
    scope: Floats
    thresholds: Floats

    def compute_scores(self, vectors: Floats, texts: Sequence[str]) -> Floats:
        """Return the scores of the routes and of being out of scope, shape ``(m, k + 1)``."""
        return _compare(_build_features(vectors - self.mean, texts), self.examples) @ self.votes


@dataclass(frozen=True, slots=True)
class Classifier:
    """Classifies texts by their vectors and their spelling.

    Without a calibration (too few texts to hold some back, or none out of scope) the verdict is ``close``
    and the confidence is the softmax. A single route with nothing out of scope leaves nothing to decide: the
    verdict is ``sure``, with the rule of succession as confidence.

    Attributes:
        routes: Names of the routes.
        example_count: Number of in-scope training texts.
        arrays: What was learnt; None: there is nothing to decide.
    """

    routes: tuple[str, ...]
    example_count: int
    arrays: FittedArrays | None

    def classify(self, vectors: Sequence[Sequence[float]], texts: Sequence[str]) -> list[Routing]:
        """Return one result for each text and its vector."""
        if not vectors:
            return []
        if self.arrays is None:
            confidence = (self.example_count + 1) / (self.example_count + 2)
            routing = Routing(self.routes[0], confidence, 0.0, "sure", (), confidence)
            return [routing] * len(vectors)
        scores = self.arrays.compute_scores(np.asarray(vectors, np.float64), texts)
        return [self._classify_one(self.arrays, row) for row in scores]

    def _classify_one(self, arrays: FittedArrays, scores: Floats) -> Routing:
        lead, margin = _compute_lead_and_margin(scores[None, :])[0]
        shares = np.exp((scores[:-1] - scores[:-1].max()) / _TEMPERATURE)
        shares /= shares.sum()
        order = np.argsort(-scores[:-1], kind="stable")
        confidence, familiarity = float(shares[order[0]]), 1.0
        verdict: Verdict = "close"
        if len(arrays.thresholds):
            familiarity = _compute_probability(arrays.scope, lead, margin)
            confidence = min(_compute_probability(arrays.correctness, lead, margin), familiarity)
            unknown_below, close_below = arrays.thresholds
            verdict = "unknown" if lead < unknown_below else "close" if margin < close_below else "sure"
        # The rest of the probability of being in scope is divided among the other routes.
        rest, others = familiarity - confidence, max(1 - float(shares[order[0]]), 1e-9)
        return Routing(
            route=self.routes[order[0]],
            confidence=confidence,
            margin=float(margin),
            verdict=verdict,
            alternatives=tuple(
                Candidate(self.routes[each], min(rest * float(shares[each]) / others, confidence))
                for each in order[1 : 1 + MAX_ALTERNATIVES]
            ),
            familiarity=familiarity,
        )


def fit_classifier(training: TrainingTexts, vectors: Sequence[Sequence[float]]) -> Classifier:
    """Fit on the vectors of ``training.texts``, in that order: seconds for 2,000 texts, in a thread.

    It uses one BLAS thread: on a busy machine several wait for each other in spin locks, for minutes in all.
    """
    arrays = None
    if len(training.routes) > 1 or training.out_of_scope:
        with threadpool_limits(limits=1, user_api="blas"):  # type: ignore[no-untyped-call]  # it has no types
            arrays = _fit(np.asarray(vectors, np.float64), training)
    return Classifier(training.routes, training.example_count, arrays)


def _fit(vectors: Floats, training: TrainingTexts) -> FittedArrays:
    """Fit on everything, and calibrate on texts that classifiers fitted without them have scored."""
    labels, routes = training.labels, len(training.routes)
    in_scope = labels != _OUT_OF_SCOPE
    mean = vectors[in_scope].mean(axis=0)
    examples = _build_features(vectors - mean, training.texts)
    kernel = _compare(examples, examples)
    targets = np.eye(routes + 1)[labels]  # _OUT_OF_SCOPE is the last
    votes = _fit_votes(kernel, targets)
    # Half the room on disk; the stored fit must give the same answers as this one.
    stored_examples = examples.astype(np.float32)
    fitted = FittedArrays(mean, stored_examples, votes, *(np.empty(0) for _ in range(3)))
    if in_scope.sum() < MIN_CALIBRATION_TEXTS or in_scope.all():
        return fitted
    folds = _assign_folds(labels)
    scores = np.zeros((len(labels), routes + 1))
    for fold in range(_FOLDS):
        held_out, used = np.flatnonzero(folds == fold), np.flatnonzero(folds != fold)
        used_votes = _fit_votes(kernel[np.ix_(used, used)], targets[used])
        scores[held_out] = kernel[np.ix_(held_out, used)] @ used_votes
    scored = folds >= 0
    correct = (scores[:, :-1].argmax(axis=1) == labels)[scored]
    scores, in_scope = _compute_lead_and_margin(scores[scored]), in_scope[scored]
    if not correct.any() or in_scope.all():
        return fitted
    odds = OUT_OF_SCOPE_SHARE / (1 - OUT_OF_SCOPE_SHARE)
    weights = np.where(in_scope, 1.0, odds * in_scope.sum() / (~in_scope).sum())
    close_below = _find_smallest_margin(scores[in_scope, 1], correct[in_scope])
    return replace(
        fitted,
        correctness=_fit_probability(scores, correct, weights),
        scope=_fit_probability(scores * [1, 0], in_scope, weights),
        thresholds=np.array([np.quantile(scores[in_scope, 0], 1 - IN_SCOPE_KEPT), close_below]),
    )


def _build_features(centred: Floats, texts: Sequence[str]) -> Floats:
    """Return what texts mean and how they are spelled side by side, of unit length together."""
    spelling = np.asarray(HashedNgrams().embed_documents(list(texts)), np.float64)
    parts = [(1 - _SPELLING) ** 0.5 * _normalize(centred), _SPELLING**0.5 * _normalize(spelling)]
    return np.hstack(parts)


def _compare(vectors: Floats, examples: NDArray[Any]) -> Floats:
    """Return the weight of each example for each text: 1 for the same features, less with the distance."""
    similarities = vectors.astype(examples.dtype, copy=False) @ examples.T
    return np.asarray(np.exp(_SHARPNESS * (similarities - 1)), np.float64)


def _fit_votes(kernel: Floats, targets: Floats) -> Floats:
    return np.asarray(np.linalg.solve(kernel + _RIDGE * np.eye(len(kernel)), targets), np.float64)


def _fit_probability(scores: Floats, outcomes: NDArray[np.bool_], weights: Floats) -> Floats:
    # Importing it takes a second and 100 MB, which a service with a stored fit saves.
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # noqa: PLC0415

    regression = LogisticRegression(C=_CALIBRATION_C, max_iter=1_000)
    regression.fit(scores, outcomes, sample_weight=weights)
    return np.concatenate([regression.coef_[0], regression.intercept_])


def _compute_probability(coefficients: Floats, lead: float, margin: float) -> float:
    log_odds = np.dot(coefficients, [lead, margin, 1.0])
    return float(1 / (1 + np.exp(-np.clip(log_odds, -30, 30))))


def _assign_folds(labels: Labels) -> Labels:
    """Return the fold of each text; -1 for the only text of a route, which is never held out."""
    folds = np.full(len(labels), -1, np.int64)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) > 1:
            folds[members] = np.arange(len(members)) % _FOLDS
    return folds


def _find_smallest_margin(margins: Floats, correct: NDArray[np.bool_]) -> float:
    """Return the smallest margin from which on at most ``SURE_AND_WRONG`` of all texts are wrong."""
    wrong = np.sort(margins[~correct])[::-1]
    allowed = int(SURE_AND_WRONG * len(margins))
    return 0.0 if len(wrong) <= allowed else float(np.nextafter(wrong[allowed], np.inf))


def _compute_lead_and_margin(scores: Floats) -> Floats:
    """Return how far the best route is above being out of scope, and above the second; shape ``(m, 2)``.

    The second of a single route is what is out of scope.
    """
    routes, outside = scores[:, :-1], scores[:, -1]
    best = routes.max(axis=1)
    second = outside if routes.shape[1] == 1 else np.partition(routes, -2, axis=1)[:, -2]
    return np.column_stack([best - outside, best - second])


def _normalize(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float64)


def load_arrays(path: Path, dimensions: int, routes: int) -> FittedArrays | None:
    """Load what :func:`store_arrays` wrote; None where there is no such file, or it is damaged."""
    try:
        with np.load(path, allow_pickle=False) as stored:
            arrays = FittedArrays(**{field.name: stored[field.name] for field in fields(FittedArrays)})
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        _log.warning("stored_router_unreadable", path=str(path), reason=str(error))
        return None
    values = [getattr(arrays, field.name) for field in fields(arrays)]
    shapes = [value.shape for value in values]
    if (
        any(value.dtype.kind != "f" or not np.isfinite(value).all() for value in values)
        or shapes[:3]
        != [
            (dimensions,),
            (len(arrays.votes), dimensions + LEXICAL_DIMENSIONS),
            (len(arrays.examples), routes + 1),
        ]
        or shapes[3:] not in ([(3,), (3,), (2,)], [(0,), (0,), (0,)])
    ):
        _log.warning("stored_router_unreadable", path=str(path), reason="unexpected arrays")
        return None
    return arrays


def store_arrays(path: Path, arrays: FittedArrays) -> None:
    """Write the arrays to a temporary file and rename it, so that readers find a whole file or none.

    A folder that cannot be written costs the time to fit again at the next start.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, suffix=".part", delete=False) as file:
            np.savez(file, **{field.name: getattr(arrays, field.name) for field in fields(arrays)})
        os.replace(file.name, path)  # noqa: PTH105 - its name is a string
        others = [other for other in path.parent.glob(f"*{path.suffix}") if other != path]
        others.sort(key=lambda other: other.stat().st_mtime, reverse=True)
        for other in others[_MAX_STORED_FILES:]:
            other.unlink(missing_ok=True)
    except OSError as error:
        _log.warning("router_not_stored", path=str(path), reason=str(error))
