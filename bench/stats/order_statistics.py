"""The interval of a median, by order statistics: exact for any distribution, also with misses.

Half of all runs take no longer than the true median. So the number of measured values below it is
that of heads among as many coins, and the binomial distribution says which two of the ordered
values enclose it. A run that missed the target is infinitely long: it is last in the order, which
is all that this method asks of it.

Source: Hollander, Wolfe & Chicken 2014, section 3.6 (Thompson 1936).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import cache


def median_interval(
    values: Sequence[float], tail: float = 0.025
) -> tuple[float | None, float | None]:
    """Both ends of the interval of the median.

    They are two of the values. The interval covers the true median at least as often as it states:
    at 95 %, from six values on.

    Args:
        values: any number of values in any order; a miss is `math.inf`.
        tail: probability, below 0.5, that the truth lies beyond either end.

    Returns:
        The lower and the upper end. An end is None where too few values determine it, or where it
        is a miss: then no value bounds the median.
    """
    cutoff = order_cutoff(len(values), tail)
    if cutoff == 0:
        return None, None
    ordered = sorted(values)
    low, high = ordered[cutoff - 1], ordered[-cutoff]
    return (low if math.isfinite(low) else None), (high if math.isfinite(high) else None)


@cache
def order_cutoff(count: int, tail: float) -> int:
    """Number of the end of the median's interval, counted from the outermost value; 0: no end.

    The greatest k for which fewer than k heads among `count` coins have at most the probability
    `tail`. It is counted in whole numbers, because rounded sums can be off by one value.

    Args:
        count: number of values.
        tail: as for `median_interval`.
    """
    allowed = Fraction(tail) * 2**count
    cutoff, ways, cumulated = 0, 1, 0
    while cutoff <= count:
        cumulated += ways
        if cumulated > allowed:
            break
        ways = ways * (count - cutoff) // (cutoff + 1)
        cutoff += 1
    return cutoff
