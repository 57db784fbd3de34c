"""A fitted router: classifier and calibration for one set of examples and one embedding model."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
from threadpoolctl import threadpool_limits

from nodes.coordinator.classifier import Candidate, Routing, TrainingTexts, Verdict
from nodes.routing.calibration import Calibration, Flags, Held, Scores, calibrate
from nodes.routing.classifier import Classifier, Floats, Labels, fit_classifier, softmax

_FOLDS: Final = 5
_MOST_ALTERNATIVES: Final = 3


@dataclass(frozen=True, slots=True)
class Fit:
    """Answers for vectors.

    Without a calibration (too few examples to hold some back) the model should decide between the routes: the
    verdict is ``close``, and the confidence the classifier's own probability. With a single route and nothing
    outside there is nothing to decide: ``sure``, with the rule of succession as confidence.
    """

    routes: tuple[str, ...]
    classifier: Classifier
    calibration: Calibration | None
    utterances: int

    def routings(self, vectors: list[list[float]]) -> list[Routing]:
        """One answer a vector."""
        if not vectors:
            return []
        logits = self.classifier.logits(np.asarray(vectors, np.float32))
        return [self._routing(row) for row in logits]

    def _routing(self, logits: Floats) -> Routing:
        scores = _scores(logits[None, :], len(self.routes))
        shares = softmax(logits[None, : len(self.routes)])[0]
        order = np.argsort(-logits[: len(self.routes)], kind="stable")
        confidence, familiarity = self._confidence(scores, float(shares[order[0]]))
        # What is in scope and not the first route's is shared out among the others.
        rest = familiarity - confidence
        others = max(1 - float(shares[order[0]]), 1e-9)
        return Routing(
            route=self.routes[order[0]],
            confidence=confidence,
            margin=float(scores[0, 1]),
            verdict=self._verdict(*map(float, scores[0])),
            alternatives=tuple(
                Candidate(self.routes[each], min(rest * float(shares[each]) / others, confidence))
                for each in order[1 : 1 + _MOST_ALTERNATIVES]
            ),
            familiarity=familiarity,
        )

    def _confidence(self, scores: Scores, share: float) -> tuple[float, float]:
        """Of the route, and of being in scope."""
        if self.calibration is not None:
            familiarity = float(self.calibration.inside(scores[:, :1])[0])
            return min(float(self.calibration.right(scores)[0]), familiarity), familiarity
        if len(self.routes) == 1:
            known = (self.utterances + 1) / (self.utterances + 2)
            return known, known
        return share, 1.0

    def _verdict(self, largest: float, margin: float) -> Verdict:
        if self.calibration is None:
            return "sure" if len(self.routes) == 1 else "close"
        if largest < self.calibration.unknown_below:
            return "unknown"
        return "close" if margin < self.calibration.close_below else "sure"


def fit(examples: TrainingTexts, vectors: list[list[float]]) -> Fit:
    """Fit on the vectors of ``examples.texts``, in that order; work of a fraction of a second, for a thread.

    On one core: the threads of a BLAS wait for each other busily, and on a machine that has other work to do
    that made minutes of it.
    """
    with threadpool_limits(limits=1, user_api="blas"):  # type: ignore[no-untyped-call]  # it has no types
        return _fit(examples, vectors)


def _fit(examples: TrainingTexts, vectors: list[list[float]]) -> Fit:
    every = np.asarray(vectors, np.float32)
    labels = np.asarray(
        [route for route, (_, texts) in enumerate(examples.by_route) for _ in texts], np.int64
    )
    # Fitted weights lie in the span of the examples: where they are few, the work is done in there.
    basis = (
        np.linalg.qr(every.T)[0] if len(every) < every.shape[1] else np.eye(every.shape[1], dtype=np.float32)
    )
    inner = every @ basis
    inside, outside = inner[: len(labels)], inner[len(labels) :]
    routes = examples.routes
    return Fit(
        routes=routes,
        classifier=_classifier(inside, labels, outside, len(routes)).lifted(basis),
        calibration=calibrate(_held(inside, labels, outside, len(routes))),
        utterances=len(labels),
    )


def _classifier(inside: Floats, labels: Labels, outside: Floats, routes: int) -> Classifier:
    """A single route has what is outside as its rival; among several, that would teach nothing general."""
    if routes > 1 or not len(outside):
        return fit_classifier(inside, labels, routes)
    rivals = np.full(len(outside), routes, np.int64)
    return fit_classifier(np.concatenate([inside, outside]), np.concatenate([labels, rivals]), routes + 1)


def _held(inside: Floats, labels: Labels, outside: Floats, routes: int) -> Held:
    """Scores of utterances by classifiers that were fitted without them."""
    if routes == 1 and not len(outside):
        return Held(np.empty((0, 2)), np.empty(0, np.bool_), np.empty((0, 2)))
    folds = _folds(labels, routes)
    outside_folds = np.arange(len(outside)) % _FOLDS
    inner: list[Scores] = []
    right: list[Flags] = []
    outer: list[Scores] = []
    for fold in range(_FOLDS):
        kept, kept_outside = folds != fold, outside_folds != fold
        model = _classifier(inside[kept], labels[kept], outside[kept_outside], routes)
        logits = model.logits(inside[~kept])
        inner.append(_scores(logits, routes))
        right.append(logits[:, :routes].argmax(axis=1) == labels[~kept])
        outer.append(_scores(model.logits(outside[~kept_outside]), routes))
    if not len(outside):
        outer = list(_strangers(inside, labels, routes))
    return Held(np.concatenate(inner), np.concatenate(right), np.concatenate([np.empty((0, 2)), *outer]))


def _folds(labels: Labels, routes: int) -> Labels:
    """The fold of each utterance, -1 for one that is its route's only one: it is never held back."""
    folds = np.full(len(labels), -1, np.int64)
    for route in range(routes):
        mine = np.flatnonzero(labels == route)
        if len(mine) > 1:
            folds[mine] = np.arange(len(mine)) % _FOLDS
    return folds


def _strangers(inside: Floats, labels: Labels, routes: int) -> Iterator[Scores]:
    """Where nothing is known to be outside: utterances of a route, as those see them who do not have it."""
    groups = min(_FOLDS, routes)
    for group in range(groups):
        away = np.arange(routes) % groups == group
        if (~away).sum() < 2:  # noqa: PLR2004 - a margin takes two
            continue
        names = np.cumsum(~away) - 1
        mine = away[labels]
        model = fit_classifier(inside[~mine], names[labels[~mine]], int((~away).sum()))
        yield _scores(model.logits(inside[mine]), int((~away).sum()))


def _scores(logits: Floats, routes: int) -> Scores:
    """Largest logit and margin over the second, shape ``(n, 2)``; of one route alone, over its rival."""
    largest = logits[:, :routes].max(axis=1)
    if logits.shape[1] == 1:
        return np.column_stack([largest, np.zeros(len(logits))]).astype(np.float64)
    second = logits[:, 1] if routes == 1 else np.partition(logits[:, :routes], -2, axis=1)[:, -2]
    return np.column_stack([largest, largest - second]).astype(np.float64)
