"""What several processes bring: parallel efficiency, and Amdahl's serial fraction.

Pure functions of seconds an image. Sources: Amdahl 1967 (a part of the work that no further
processor makes shorter); Karp & Flatt 1990 (that part, from measurements).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.stats.intervals import Estimate, location_shift
from bench.stats.student_t import t_quantile

FEWEST_COUNTS = 3
"""Different process counts below which Amdahl's law fits anything: it has two unknowns."""


def speedup(base: Sequence[float], seconds: Sequence[float], tail: float = 0.025) -> Estimate:
    """How many times as fast the second is, by ranks.

    Args:
        base: seconds an image with the fewest processes, one positive number a run.
        seconds: with more of them.
        tail: probability that the truth lies beyond either end of the interval.
    """
    logs = [math.log(value) for value in seconds], [math.log(value) for value in base]
    return location_shift(*logs, tail).as_ratio()


def efficiency(speedup: Estimate, fewest: int, processes: int) -> Estimate:
    """A speed-up over the fewest processes as a share of the ideal one; 1 is all of it."""
    part = fewest / processes
    ends = (None if end is None else end * part for end in (speedup.low, speedup.high))
    return Estimate(speedup.value * part, *ends)


@dataclass(frozen=True, slots=True)
class Amdahl:
    """Amdahl's law, fitted."""

    serial_fraction: Estimate
    """Of one process's time, what further ones do not shorten, with its 95 % interval. Below 0,
    processes gained more than their number; above 1, they made it slower: the law explains
    neither."""
    alone_seconds: float
    """An image, of one process, by the fit."""

    def speedup(self, processes: float) -> float:
        """By the fit, over one process."""
        s = self.serial_fraction.value
        return 1 / (s + (1 - s) / processes)


def fit_amdahl(seconds: Mapping[int, Sequence[float]]) -> Amdahl | str:
    """Fit ``T(n) = T(1) (s + (1 - s) / n)``, by least squares of the logarithms, over all runs.

    The interval is Student's, of the linearised fit: what the law does not explain widens it.

    Args:
        seconds: an image, of every run, by the number of processes; positive.

    Returns:
        The fit, or why there is none.
    """
    counts = sorted(count for count, times in seconds.items() if times)
    if len(counts) < FEWEST_COUNTS:
        return f"a fit takes {FEWEST_COUNTS} different process counts, and there are {len(counts)}"
    # A third of a second to load, and only a fit needs it.
    import numpy as np
    from scipy.optimize import curve_fit

    # A time must be positive for every count that was measured.
    least = -1 / (counts[-1] - 1) + 1e-9

    def model(processes: Any, log_alone: float, serial: float) -> Any:
        return log_alone + np.log(serial + (1 - serial) / processes)

    try:
        n = np.array([count for count in counts for _ in seconds[count]], dtype=float)
        log_times = np.log([time for count in counts for time in seconds[count]])
        # T = a + b / n is linear: its answer, residuals as shares, is next to the one sought.
        weights = np.exp(-log_times)
        matrix = np.stack([weights, weights / n], axis=1)
        a, b = np.linalg.lstsq(matrix, np.ones(len(n)), rcond=None)[0]
        alone = float(a + b)
        start = (math.log(alone), max(float(a) / alone, least + 1e-6))
        bounds = ([-np.inf, least], [np.inf, np.inf])
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that there is no covariance: seen below
            found, covariance = curve_fit(model, n, log_times, p0=start, bounds=bounds, xtol=1e-12)
    except (RuntimeError, ValueError, OverflowError, ZeroDivisionError):
        return "no fit was found"
    serial = float(found[1])
    half = t_quantile(len(n) - 2, 0.975) * math.sqrt(float(covariance[1][1]))
    if not math.isfinite(half) or serial <= least * 0.999:
        return "the times fall faster than any serial fraction allows"
    return Amdahl(Estimate(serial, serial - half, serial + half), math.exp(float(found[0])))
