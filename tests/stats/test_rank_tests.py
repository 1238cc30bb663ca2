"""Distributions of rank statistics against scipy's."""

from __future__ import annotations

import math

import pytest
from scipy import stats as scipy_stats

from bench.stats.rank_tests import rank_sum_counts, signed_rank_counts


@pytest.mark.parametrize(("first", "second"), [(3, 3), (4, 7), (9, 5), (12, 12)])
def test_rank_sums_are_scipys(first: int, second: int) -> None:
    counts = rank_sum_counts(first, second)
    total = math.comb(first + second, first)
    assert sum(counts) == total
    # A sample wholly below but for `u` steps has the statistic u.
    for u in range(0, first * second + 1, max(1, first * second // 6)):
        exact = float(sum(counts[: u + 1])) / total
        x, y = _with_statistic(first, second, u)
        p = scipy_stats.mannwhitneyu(x, y, alternative="less", method="exact").pvalue
        assert exact == pytest.approx(float(p), rel=1e-9)


def _with_statistic(first: int, second: int, u: int) -> tuple[list[float], list[float]]:
    """Two samples whose Mann-Whitney statistic, of the first, is `u`."""
    whole, rest = divmod(u, second)
    below = [-1.0 - k for k in range(first - whole - (rest > 0))]
    within = [rest - 0.5] if rest else []
    above = [second + 1.0 + k for k in range(whole)]
    return below + within + above, [float(k) for k in range(second)]


@pytest.mark.parametrize("count", [1, 5, 8, 13])
def test_signed_ranks_are_scipys(count: int) -> None:
    counts = signed_rank_counts(count)
    assert sum(counts) == 2**count
    total = count * (count + 1) // 2
    for rank in range(1, count + 1):
        # Positive: the one value of that rank.
        values = [float(k) if k == rank else -float(k) for k in range(1, count + 1)]
        p = scipy_stats.wilcoxon(values, alternative="less", method="exact").pvalue
        assert sum(counts[: rank + 1]) / 2**count == pytest.approx(float(p), rel=1e-9)
    assert counts == counts[::-1]
    assert len(counts) == total + 1
