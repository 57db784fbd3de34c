"""From scores to probabilities and thresholds, learned from utterances the classifier had not seen.

Probabilities are logistic regressions of the scores (Platt 1999, "Probabilistic outputs for support vector
machines"), here of the largest logit and its margin over the second. The largest logit, and not the largest
probability, tells what is out of scope: a softmax must choose even where nothing fits (Hendrycks et al. 2022,
"Scaling out-of-distribution detection", arXiv:1911.11132; the task is that of Larson et al. 2019,
arXiv:1909.02027, CLINC150).
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Scores: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

KEPT: Final = 0.95  # share of held-in utterances that are not called unknown
WRONG: Final = 0.02  # greatest share of held-in utterances that are called sure and are another route's
OUTSIDE: Final = 0.1  # assumed share of texts that are out of scope
FEWEST: Final = 20  # held-in utterances below which nothing is calibrated

_RIDGE: Final = 0.01
_NEWTON_STEPS: Final = 30


@dataclass(frozen=True, slots=True)
class Held:
    """What the classifier said of utterances it was not fitted on.

    Args:
        inside: Largest logit and margin of utterances that belong to a route, shape ``(n, 2)``.
        right: Whether the largest was the right one, shape ``(n,)``.
        outside: Largest logit and margin of utterances that belong to none, shape ``(m, 2)``.
    """

    inside: Scores
    right: Flags
    outside: Scores


@dataclass(frozen=True, slots=True)
class Logistic:
    """A probability from standardised features."""

    mean: Scores
    scale: Scores
    slopes: Scores

    def __call__(self, features: Scores) -> Scores:
        """Probabilities, shape ``(n,)``, of features of shape ``(n, f)``."""
        return _sigmoid(_design((features - self.mean) / self.scale) @ self.slopes)


@dataclass(frozen=True, slots=True)
class Calibration:
    """Probabilities of scores, and where they stop being good enough.

    Args:
        right: P(in scope and the route is right | largest logit, margin).
        inside: P(in scope | largest logit).
        unknown_below: Largest logit below which a text is unknown.
        close_below: Margin below which the model should decide.
    """

    right: Logistic
    inside: Logistic
    unknown_below: float
    close_below: float


def calibrate(held: Held) -> Calibration | None:
    """Learn probabilities and thresholds; None when there are fewer than ``FEWEST`` held-in utterances."""
    inside, outside = held.inside, held.outside
    if len(inside) < FEWEST:
        return None
    features = np.concatenate([inside, outside])
    weights = np.ones(len(features))
    if len(outside):
        weights[len(inside) :] = len(inside) / len(outside) * OUTSIDE / (1 - OUTSIDE)
    right = np.concatenate([held.right, np.zeros(len(outside), np.bool_)])
    is_inside = np.arange(len(features)) < len(inside)
    return Calibration(
        right=_logistic(features, right, weights),
        inside=_logistic(features[:, :1], is_inside, weights),
        unknown_below=float(np.quantile(inside[:, 0], 1 - KEPT)),
        close_below=_least_margin(inside[:, 1], held.right),
    )


def _least_margin(margins: Scores, right: Flags) -> float:
    """The least margin at and above which no more than ``WRONG`` of all utterances are wrong."""
    wrong = np.sort(margins[~right])[::-1]
    allowed = int(WRONG * len(margins))
    if len(wrong) <= allowed:
        return 0.0
    return float(np.nextafter(wrong[allowed], np.inf))


def _logistic(features: Scores, outcomes: Flags, weights: Scores) -> Logistic:
    """Weighted logistic regression by Newton's method, with Platt's smoothed targets."""
    mean = np.average(features, axis=0, weights=weights)
    scale = np.sqrt(np.average((features - mean) ** 2, axis=0, weights=weights)) + 1e-9
    design = _design((features - mean) / scale)
    yes = float(weights[outcomes].sum())
    no = float(weights[~outcomes].sum())
    targets = np.where(outcomes, (yes + 1) / (yes + 2), 1 / (no + 2))
    ridge = _RIDGE * np.eye(design.shape[1])
    slopes = np.zeros(design.shape[1])
    for _ in range(_NEWTON_STEPS):
        said = _sigmoid(design @ slopes)
        gradient = design.T @ (weights * (said - targets)) + ridge @ slopes
        curvature = (design * (weights * said * (1 - said))[:, None]).T @ design + ridge
        slopes = slopes - np.linalg.solve(curvature, gradient)
    return Logistic(mean=mean, scale=scale, slopes=slopes)


def _design(features: Scores) -> Scores:
    return np.column_stack([features, np.ones(len(features))])


def _sigmoid(values: Scores) -> Scores:
    return np.asarray(1 / (1 + np.exp(-np.clip(values, -30, 30))), np.float64)
