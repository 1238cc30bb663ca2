"""Recompute the worked examples of docs/statistics.md."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

from bench.analysis.comparison import GATE_TAIL, POWER, TAIL
from bench.stats import attempts, intervals, rcp, sample_size, summary
from bench.stats.attempts import Attempt
from bench.stats.intervals import Estimate
from bench.text import Rounding, rounded
from tests.stats.session_alarms import SESSION_SPREADS, false_alarms

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "statistics.md"


def example(name: str) -> str:
    """The text between ``<!-- name -->`` and ``<!-- end -->``."""
    match = re.search(rf"<!-- {name} -->(.*?)<!-- end -->", DOCUMENT.read_text(), re.DOTALL)
    assert match, name
    return " ".join(match[1].split())


BASE = [6.0, 6.1, 6.3, 6.2, 9.9]
NEW = [6.6, 6.7, 6.9, 6.8, 6.5]


def logs(values: list[float]) -> list[float]:
    return [math.log(value) for value in values]


def test_ratios_by_ranks() -> None:
    ratio = intervals.location_shift(logs(BASE), logs(NEW), TAIL).as_ratio()
    assert (
        example("shift") == f"{ratio.value:.3f}, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    )
    assert sum(NEW) < sum(BASE)


def test_interleaved_runs() -> None:
    differences = [b - a for a, b in zip(logs(BASE), logs(NEW), strict=True)]
    ratio = intervals.paired_location_shift(differences, TAIL).as_ratio()
    assert ratio.low is None
    assert example("paired") == f"no interval, ratio {ratio.value:.3f}"
    six_pairs = intervals.paired_location_shift([*differences, 0.1], TAIL)
    assert six_pairs.low is not None


def test_sessions() -> None:
    rows = [
        " | ".join(f"{100 * share:.0f} %" for share in (spread, *false_alarms(spread)))
        for spread in SESSION_SPREADS
    ]
    assert all(f"| {row} |" in example("sessions") for row in rows)


FIVE = [Attempt(t, reached=True) for t in (10.0, 11.0, 12.0, 13.0)]
FIVE.append(Attempt(20.0, reached=False))


def outwards(low: float, high: float) -> str:
    return f"{rounded(low, 1, Rounding.DOWN):.1f} to {rounded(high, 1, Rounding.UP):.1f}"


def times(trials: list[Attempt]) -> list[float]:
    return [trial.seconds if trial.reached else summary.MISSED for trial in trials]


def test_runs_that_missed() -> None:
    assert example("median") == f"{summary.summarize(times(FIVE)).median:.1f} s"
    assert example("expected") == f"{attempts.seconds_per_success(FIVE):.1f} s"
    ten = summary.summarize(times(FIVE * 2))
    assert ten.median_high is None
    assert example("ten-runs") == f"at least {ten.median_low:.1f} s"
    fifteen = summary.summarize(times(FIVE * 3))
    interval = f"{fifteen.median_low:.1f} to {fifteen.median_high:.1f} s"
    assert example("fifteen-runs") == interval


def test_the_cost_of_a_success() -> None:
    cost = attempts.seconds_per_success_interval(FIVE * 3)
    assert cost is not None
    assert cost.low is not None
    assert cost.high is not None
    text = f"{cost.value:.1f} s, {outwards(cost.low, cost.high)}"
    assert example("expected-interval") == text
    restricted = attempts.restricted_mean(FIVE * 3, 20.0)
    assert restricted.low is not None
    assert restricted.high is not None
    text = f"{restricted.value:.1f} s, {outwards(restricted.low, restricted.high)}"
    assert example("restricted") == text


def test_mlperfs_rules() -> None:
    mean = rcp.olympic_mean([5.9, 6.0, 6.1, 6.3, math.inf])
    assert example("olympic") == f"{mean:.2f} s"
    allowed = rcp.epochs_allowed([20, 20, 21, 21, 22, 23], 5)
    assert allowed is not None
    assert example("rcp") == f"{allowed.fewest:.1f} to {allowed.most:.1f} epochs"


def test_accuracy() -> None:
    difference = intervals.mean_difference([99.44, 99.48, 99.51], [99.45, 99.47, 99.52], GATE_TAIL)
    interval = f"{difference.low:+.3f} to {difference.high:+.3f}"
    assert example("accuracy") == f"{difference.value:+.3f} points, {interval}"


def test_how_many_runs() -> None:
    for name, noise in (("runs", 0.01), ("more", 0.05)):
        generator = random.Random(0)
        values = [generator.gauss(0, 1) for _ in range(2000)]
        scale = noise / Estimate(math.sqrt(sum(v * v for v in values) / 2000), None, None).value
        scaled = [scale * value for value in values]
        spread = sample_size.ratio_spread(scaled, scaled[::-1], paired=False)
        assert spread is not None
        needed = sample_size.runs_needed(spread, math.log1p(0.05), TAIL, POWER)
        assert example(name) == f"{needed} runs a side"
