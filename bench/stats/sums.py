"""Sums of floats that are the same with every Python.

Since Python 3.12 the builtin `sum` compensates rounding errors of floats, before it did not.
"""

from __future__ import annotations

import math
from collections.abc import Iterable


def exact_sum(values: Iterable[float]) -> float:
    """The sum of floats, rounded once; infinite where it is too great, NaN as floats add."""
    numbers = list(values)
    try:
        return math.fsum(numbers)
    except (OverflowError, ValueError):
        return float(sum(numbers))
