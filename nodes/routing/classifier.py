"""Multinomial logistic regression over centred vectors of unit length, in numpy.

Sentence vectors of a domain share a large common part; taking their mean away and normalising again spreads
them (Mu and Viswanath 2018, arXiv:1702.01417). The weights minimise the penalised cross-entropy, by Newton
steps with a fixed bound in place of the curvature (Böhning 1992, "Multinomial logistic regression algorithm")
and Nesterov's momentum: a few dozen small matrix products, which a busy machine still does in good time.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float32]
Labels: TypeAlias = NDArray[np.int64]

_PENALTY: Final = 0.1  # weight of the squared norm; the inverse of what is often called C
_BIAS_PENALTY: Final = 1e-3  # next to nothing: it keeps the matrix invertible
_ITERATIONS: Final = 40


@dataclass(frozen=True, slots=True)
class Classifier:
    """Scores of ``k`` classes for vectors of ``d`` numbers.

    Args:
        mean: Shape ``(d,)``.
        weights: Shape ``(d, k)``.
        bias: Shape ``(k,)``.
    """

    mean: Floats
    weights: Floats
    bias: Floats

    def logits(self, vectors: Floats) -> Floats:
        """Scores, shape ``(n, k)``, of vectors of shape ``(n, d)``."""
        return _spread(vectors, self.mean) @ self.weights + self.bias

    def lifted(self, basis: Floats) -> "Classifier":
        """The same for vectors in the space that ``basis``, shape ``(D, d)`` and orthonormal, is of."""
        return Classifier(mean=basis @ self.mean, weights=basis @ self.weights, bias=self.bias)


def fit_classifier(vectors: Floats, labels: Labels, classes: int) -> Classifier:
    """Fit on vectors of shape ``(n, d)`` with labels from 0 to ``classes - 1``."""
    mean = vectors.mean(axis=0)
    inputs = np.column_stack([_spread(vectors, mean), np.ones(len(vectors), np.float32)])
    wanted = np.eye(classes, dtype=np.float32)[labels]
    # Half the Gram matrix bounds the curvature everywhere, so that steps with its inverse cannot overshoot.
    ridge = np.full(inputs.shape[1], _PENALTY, np.float32)
    ridge[-1] = _BIAS_PENALTY
    inverse = np.linalg.inv(0.5 * inputs.T @ inputs + np.diag(ridge))
    weights = np.zeros((inputs.shape[1], classes), np.float32)
    moved = weights
    for iteration in range(_ITERATIONS):
        ahead = weights + np.float32(iteration / (iteration + 3)) * moved
        error = softmax(inputs @ ahead) - wanted
        stepped = ahead - inverse @ (inputs.T @ error + ridge[:, None] * ahead)
        moved, weights = stepped - weights, stepped
    return Classifier(mean=mean, weights=weights[:-1], bias=weights[-1])


def softmax(logits: Floats) -> Floats:
    """Probabilities of each row."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)


def _spread(vectors: Floats, mean: Floats) -> Floats:
    centred = vectors - mean
    lengths = np.linalg.norm(centred, axis=1, keepdims=True)
    return np.asarray(centred / np.maximum(lengths, 1e-9), np.float32)
