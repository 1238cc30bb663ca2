"""The gain from several processes: parallel efficiency, and Amdahl's serial fraction.

Pure functions of seconds per image. Sources: Amdahl 1967 (the part of the work that further
processors do not shorten); Karp & Flatt 1990 (that part, from measurements).
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
"""Number of process counts below which Amdahl's law, with its two unknowns, fits anything."""


def speedup(base: Sequence[float], seconds: Sequence[float], tail: float = 0.025) -> Estimate:
    """How many times as fast `seconds` are as `base`, by ranks.

    Args:
        base: seconds per image with the fewest processes, one positive number per run.
        seconds: seconds per image with more processes, one positive number per run.
        tail: probability that the truth lies beyond either end of the interval.
    """
    logs = [math.log(value) for value in seconds], [math.log(value) for value in base]
    return location_shift(*logs, tail).as_ratio()


def efficiency(speedup: Estimate, fewest: int, processes: int) -> Estimate:
    """A speed-up over the fewest processes as a share of the ideal speed-up; 1 is ideal."""
    share = fewest / processes
    ends = (None if end is None else end * share for end in (speedup.low, speedup.high))
    return Estimate(speedup.value * share, *ends)


@dataclass(frozen=True, slots=True)
class Amdahl:
    """Amdahl's law, fitted."""

    serial_fraction: Estimate
    """Share of one process's time that further processes do not shorten, with its 95 % interval.
    Below 0, the gain exceeds the number of processes; above 1, processes made training slower: the
    law explains neither."""
    alone_seconds: float
    """Seconds per image of one process, by the fit."""

    def speedup(self, processes: float) -> float:
        """Speed-up over one process, by the fit."""
        s = self.serial_fraction.value
        return 1 / (s + (1 - s) / processes)


def fit_amdahl(seconds: Mapping[int, Sequence[float]]) -> Amdahl | str:
    """Fit ``T(n) = T(1) (s + (1 - s) / n)``, by least squares of the logarithms, over all runs.

    The interval is Student's, of the linearised fit: what the law does not explain widens it.

    Args:
        seconds: seconds per image of every run, above 0, by the number of processes.

    Returns:
        The fit, or why there is none.
    """
    counts = sorted(count for count, times in seconds.items() if times)
    if len(counts) < FEWEST_COUNTS:
        return f"a fit takes {FEWEST_COUNTS} different process counts, and there are {len(counts)}"
    # Lazy: scipy takes a third of a second to import, and only a fit needs it.
    import numpy as np
    from scipy.optimize import curve_fit

    # A time must be positive for every count that was measured.
    least = -1 / (counts[-1] - 1) + 1e-9

    def model(processes: Any, log_alone: float, serial: float) -> Any:
        return log_alone + np.log(serial + (1 - serial) / processes)

    try:
        n = np.array([count for count in counts for _ in seconds[count]], dtype=float)
        log_times = np.log([time for count in counts for time in seconds[count]])
        # T = a + b / n is linear; its solution, with relative residuals, is close to the fit.
        weights = np.exp(-log_times)
        matrix = np.stack([weights, weights / n], axis=1)
        a, b = np.linalg.lstsq(matrix, np.ones(len(n)), rcond=None)[0]
        alone = float(a + b)
        start = (math.log(alone), max(float(a) / alone, least + 1e-6))
        bounds = ([-np.inf, least], [np.inf, np.inf])
        with np.errstate(all="ignore"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a missing covariance, which is checked below
            fitted, covariance = curve_fit(model, n, log_times, p0=start, bounds=bounds, xtol=1e-12)
    except (RuntimeError, ValueError, OverflowError, ZeroDivisionError):
        return "no fit was found"
    serial = float(fitted[1])
    half = t_quantile(len(n) - 2, 0.975) * math.sqrt(float(covariance[1][1]))
    if not math.isfinite(half) or serial <= least * 0.999:
        return "the times fall faster than any serial fraction allows"
    return Amdahl(Estimate(serial, serial - half, serial + half), math.exp(float(fitted[0])))
