"""How sure a mean over seeds is. Pure."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

# Two-sided 95 % quantiles of Student's t distribution for 1 to 30 degrees of freedom.
_T95 = (
    12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145, 2.131,
    2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048, 2.045, 2.042,
)  # fmt: skip
_NORMAL95 = 1.960


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """95 % confidence interval of the mean: mean ± t s / sqrt(n), Student's t with n - 1 degrees of freedom.

    Args:
        values: one a seed; taken as independent and roughly normal.

    Returns:
        Its ends; ``None`` for fewer than two values.
    """
    if len(values) < 2:
        return None
    freedom = len(values) - 1
    t = _T95[freedom - 1] if freedom <= len(_T95) else _NORMAL95
    half = t * statistics.stdev(values) / math.sqrt(len(values))
    mean = statistics.fmean(values)
    return mean - half, mean + half


__all__ = ["interval"]
