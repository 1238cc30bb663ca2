"""Quantiles of Student's t distribution, without scipy, whose import takes longer than a report."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist


def t_quantile(degrees: float, probability: float) -> float:
    """The value that this share of the distribution lies below."""
    if probability < 0.5:
        return -t_above(degrees, probability)
    return t_above(degrees, 1 - probability)


@lru_cache(maxsize=256)
def t_above(degrees: float, tail: float) -> float:
    """The value that a share `tail` of the distribution lies above.

    By Newton's method from the normal quantile. Above the median that is too low, and the
    distribution is concave: so each step goes up, and never beyond the solution. Its relative error
    is below 1e-8 up to 100,000 degrees of freedom, and far smaller for fewer. It is rounded to 10
    digits: so a table has the same digits, whichever `log` and `exp` the C library has.

    Args:
        degrees: degrees of freedom, 1 or more; need not be whole.
        tail: above 0 and at most 0.5.
    """
    t = -NormalDist().inv_cdf(tail)
    log_scale = (
        math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - math.log(degrees * math.pi) / 2
    )
    for _ in range(_MOST_STEPS):
        density = math.exp(log_scale - (degrees + 1) / 2 * math.log1p(t * t / degrees))
        step = (_share_above(t, degrees) - tail) / density
        t += step
        if step <= _SMALLEST_STEP * t:
            break
    return float(f"{t:.10g}")


_MOST_STEPS = 200
_SMALLEST_STEP = 1e-13


def _share_above(t: float, degrees: float) -> float:
    """The share of the distribution above `t`, which is 0 or more.

    Source: Abramowitz & Stegun 26.7.1 and 26.5.8, the incomplete beta function as a continued
    fraction, evaluated by Lentz's method.
    """
    # Each by itself: near the median 1 - x has few digits.
    x, rest = degrees / (degrees + t * t), t * t / (degrees + t * t)
    a, b = degrees / 2, 0.5
    if x > (a + 1) / (a + b + 2):  # where the other fraction converges fast
        return 0.5 - _beta_share(b, a, rest, x) / 2
    return _beta_share(a, b, x, rest) / 2


def _beta_share(a: float, b: float, x: float, rest: float) -> float:
    """The regularized incomplete beta function of x, with 1 - x given as `rest`."""
    if x <= 0:
        return 0.0
    log_factor = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
    factor = math.exp(log_factor + a * math.log(x) + b * math.log(rest)) / a
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, 10_000):
        for numerator in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + numerator * d)
            c = 1 + numerator / c
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return factor * fraction
