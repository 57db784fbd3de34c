"""What is measured of answers with a confidence."""

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Flags = NDArray[np.bool_]


def recall_outside(inside: Numbers, outside: Numbers, *, kept: float) -> float:
    """Share of out-of-scope texts scored below the threshold that keeps ``kept`` of those in scope."""
    return float((outside < np.quantile(inside, 1 - kept)).mean())


def calibration_error(confidences: Numbers, right: Flags, *, bins: int = 15) -> float:
    """Expected calibration error (Guo et al. 2017, arXiv:1706.04599) over bins of equal width."""
    which = np.minimum((confidences * bins).astype(int), bins - 1)
    return sum(
        abs(float(confidences[which == each].mean()) - float(right[which == each].mean()))
        * float((which == each).mean())
        for each in np.unique(which)
    )
