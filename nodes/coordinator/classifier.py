"""A text classifier that knows when to abstain: fitted with scikit-learn, applied with NumPy, stored on disk.

A multinomial logistic regression over centred sentence vectors of unit length. Sentence vectors of one domain
share a large common part; removing their mean spreads them (Mu and Viswanath 2018, arXiv:1702.01417).

Probabilities are logistic regressions of its scores on held-out texts (Platt 1999, "Probabilistic outputs for
support vector machines"): of the largest logit and its margin over the second. The largest logit, and not the
largest probability, tells what is out of scope, because a softmax must choose even where nothing fits
(Hendrycks et al. 2022, arXiv:1911.11132; the task is that of Larson et al. 2019, arXiv:1909.02027, CLINC150).
"""

import os
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from core.errors import StartupError
from core.logging import get_logger

Verdict: TypeAlias = Literal["sure", "close", "unknown"]
Floats: TypeAlias = NDArray[np.float64]
Labels: TypeAlias = NDArray[np.int64]

MAX_ALTERNATIVES: Final = 3
IN_SCOPE_KEPT: Final = 0.95  # share of held-out in-scope texts that are not called unknown
SURE_AND_WRONG: Final = 0.02  # largest share of held-out in-scope texts that are called sure and are wrong
OUT_OF_SCOPE_SHARE: Final = 0.1  # assumed share of texts that are out of scope
MIN_CALIBRATION_TEXTS: Final = 20

_FOLDS: Final = 5
_OUT_OF_SCOPE: Final = -1  # label of texts that belong to no route
_MAX_STORED_FILES: Final = 16
# scikit-learn's inverse strengths of regularisation, and the tolerance at which fitting stops. Chosen on
# CLINC150 (benchmarks/routing.py).
_CLASSIFIER_C: Final = 10.0
_CALIBRATION_C: Final = 100.0
_TOLERANCE: Final = 1e-3

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
        margin: Log odds of the route over the second best.
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
    """What fitting learns about ``k`` classes of vectors with ``d`` numbers; all that is stored on disk.

    Attributes:
        mean: Mean of the training vectors, shape ``(d,)``.
        weights: Shape ``(d, k)``.
        bias: Shape ``(k,)``.
        correctness: Two slopes, for the largest logit and the margin, and the intercept of the log odds that
            the route is right; shape ``(3,)``, or ``(0,)`` without a calibration.
        scope: The same for the log odds that the text is in scope; the slope of the margin is 0.
        thresholds: The largest logit below which a text is unknown, and the margin below which a model
            should decide; shape ``(2,)``, or ``(0,)``.
    """

    mean: Floats
    weights: Floats
    bias: Floats
    correctness: Floats
    scope: Floats
    thresholds: Floats

    def compute_logits(self, vectors: Floats) -> Floats:
        """Return the scores of the classes, shape ``(n, k)``, for vectors of shape ``(n, d)``."""
        return _normalize(vectors - self.mean) @ self.weights + self.bias


@dataclass(frozen=True, slots=True)
class Classifier:
    """Classifies vectors.

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

    def classify(self, vectors: Sequence[Sequence[float]]) -> list[Routing]:
        """Return one result for each vector."""
        if not vectors:
            return []
        if self.arrays is None:
            confidence = (self.example_count + 1) / (self.example_count + 2)
            routing = Routing(self.routes[0], confidence, 0.0, "sure", (), confidence)
            return [routing] * len(vectors)
        logits = self.arrays.compute_logits(np.asarray(vectors, np.float64))
        return [self._classify_one(self.arrays, row) for row in logits]

    def _classify_one(self, arrays: FittedArrays, logits: Floats) -> Routing:
        top, margin = _compute_scores(logits[None, :], len(self.routes))[0]
        route_logits = logits[: len(self.routes)]
        shares = np.exp(route_logits - route_logits.max())
        shares /= shares.sum()
        order = np.argsort(-route_logits, kind="stable")
        confidence, familiarity = float(shares[order[0]]), 1.0
        verdict: Verdict = "close"
        if len(arrays.thresholds):
            familiarity = _compute_probability(arrays.scope, top, margin)
            confidence = min(_compute_probability(arrays.correctness, top, margin), familiarity)
            unknown_below, close_below = arrays.thresholds
            verdict = "unknown" if top < unknown_below else "close" if margin < close_below else "sure"
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
    """Fit on the vectors of ``training.texts``, in that order: a fraction of a second, for a thread.

    It uses one BLAS thread: on a busy machine several wait for each other in spin locks, for minutes in all.
    """
    arrays = None
    if len(training.routes) > 1 or training.out_of_scope:
        with threadpool_limits(limits=1, user_api="blas"):  # type: ignore[no-untyped-call]  # it has no types
            arrays = _fit(np.asarray(vectors, np.float64), training.labels, len(training.routes))
    return Classifier(training.routes, training.example_count, arrays)


def _fit(vectors: Floats, labels: Labels, routes: int) -> FittedArrays:
    """Fit on everything, and calibrate on texts that classifiers fitted without them have scored."""
    in_scope = labels != _OUT_OF_SCOPE
    fitted = _fit_linear(vectors, labels, routes)
    if in_scope.sum() < MIN_CALIBRATION_TEXTS or in_scope.all():
        return fitted
    folds = _assign_folds(labels)
    scores, correct = np.zeros((len(labels), 2)), np.zeros(len(labels), np.bool_)
    for fold in range(_FOLDS):
        held_out = folds == fold
        logits = _fit_linear(vectors[~held_out], labels[~held_out], routes).compute_logits(vectors[held_out])
        scores[held_out] = _compute_scores(logits, routes)
        correct[held_out] = logits[:, :routes].argmax(axis=1) == labels[held_out]
    held_out = folds >= 0
    scores, correct, in_scope = scores[held_out], correct[held_out], in_scope[held_out]
    if not correct.any() or in_scope.all():
        return fitted
    odds = OUT_OF_SCOPE_SHARE / (1 - OUT_OF_SCOPE_SHARE)
    weights = np.where(in_scope, 1.0, odds * in_scope.sum() / (~in_scope).sum())
    close_below = _find_smallest_margin(scores[in_scope, 1], correct[in_scope])
    return FittedArrays(
        fitted.mean,
        fitted.weights,
        fitted.bias,
        correctness=_fit_probability(scores, correct, weights),
        scope=_fit_probability(scores * [1, 0], in_scope, weights),
        thresholds=np.array([np.quantile(scores[in_scope, 0], 1 - IN_SCOPE_KEPT), close_below]),
    )


def _fit_linear(vectors: Floats, labels: Labels, routes: int) -> FittedArrays:
    """Fit the classifier without a calibration.

    What is out of scope is the rival of a single route; among several it would teach nothing general.
    """
    if routes > 1:
        vectors, labels = vectors[labels != _OUT_OF_SCOPE], labels[labels != _OUT_OF_SCOPE]
    else:
        labels = np.where(labels == _OUT_OF_SCOPE, 1, 0)
    mean = vectors.mean(axis=0)
    weights, bias = _fit_logistic_regression(
        _normalize(vectors - mean), labels, inverse_strength=_CLASSIFIER_C
    )
    if weights.shape[1] == 1:
        # Of two classes scikit-learn gives the difference.
        weights, bias = weights * [-0.5, 0.5], bias * [-0.5, 0.5]
    return FittedArrays(mean, weights, bias, *(np.empty(0) for _ in range(3)))


def _fit_logistic_regression(
    inputs: Floats,
    labels: NDArray[Any],
    *,
    inverse_strength: float,
    weights: Floats | None = None,
) -> tuple[Floats, Floats]:
    """Return weights of shape ``(d, k)``, or ``(d, 1)`` for two classes, and the intercepts."""
    # Importing it takes a second and 100 MB, which a service with a stored fit saves.
    from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]  # noqa: PLC0415

    regression = LogisticRegression(C=inverse_strength, tol=_TOLERANCE, max_iter=1_000)
    regression.fit(inputs, labels, sample_weight=weights)
    return regression.coef_.T, regression.intercept_


def _fit_probability(scores: Floats, outcomes: NDArray[np.bool_], weights: Floats) -> Floats:
    slopes, intercept = _fit_logistic_regression(
        scores, outcomes, inverse_strength=_CALIBRATION_C, weights=weights
    )
    return np.concatenate([slopes[:, 0], intercept])


def _compute_probability(coefficients: Floats, top: float, margin: float) -> float:
    log_odds = np.dot(coefficients, [top, margin, 1.0])
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


def _compute_scores(logits: Floats, routes: int) -> Floats:
    """Return the largest logit of a route and its margin over the second, shape ``(n, 2)``.

    The second of a single route is what is out of scope.
    """
    if routes == 1:
        return np.column_stack([logits[:, 0], logits[:, 0] - logits[:, 1]])
    top_two = np.partition(logits, -2, axis=1)[:, -2:]
    return np.column_stack([top_two[:, 1], top_two[:, 1] - top_two[:, 0]])


def _normalize(vectors: Floats) -> Floats:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float64)


def load_arrays(path: Path, dimensions: int) -> FittedArrays | None:
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
    classes = arrays.bias.size
    if (
        any(value.dtype != np.float64 or not np.isfinite(value).all() for value in values)
        or shapes[:3] != [(dimensions,), (dimensions, classes), (classes,)]
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
