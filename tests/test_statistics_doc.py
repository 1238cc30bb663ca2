"""The worked examples of docs/statistics.md, computed again."""

from __future__ import annotations

import math
import random
import re
from pathlib import Path

from bench import inference, survival
from bench.contrast import GATE_TAIL, POWER, TAIL
from bench.inference import Estimate
from bench.survival import Trial

DOCUMENT = Path(__file__).parent.parent / "docs" / "statistics.md"


def example(name: str) -> str:
    """What stands between ``<!-- name -->`` and ``<!-- end -->``."""
    found = re.search(rf"<!-- {name} -->(.*?)<!-- end -->", DOCUMENT.read_text(), re.DOTALL)
    assert found, name
    return " ".join(found[1].split())


BASE = [6.0, 6.1, 6.3, 6.2, 9.9]
NEW = [6.6, 6.7, 6.9, 6.8, 6.5]


def logs(values: list[float]) -> list[float]:
    return [math.log(value) for value in values]


def test_ratios_by_ranks() -> None:
    ratio = inference.shift(logs(BASE), logs(NEW), TAIL).as_ratio()
    assert (
        example("shift") == f"{ratio.value:.3f}, 95 % interval {ratio.low:.3f} to {ratio.high:.3f}"
    )
    assert sum(NEW) < sum(BASE)


def test_by_turns() -> None:
    differences = [b - a for a, b in zip(logs(BASE), logs(NEW), strict=True)]
    found = inference.paired_shift(differences, TAIL).as_ratio()
    assert found.low is None
    assert example("paired") == f"no interval, ratio {found.value:.3f}"
    six = inference.paired_shift([*differences, 0.1], TAIL)
    assert six.low is not None


def test_runs_that_missed() -> None:
    trials = [Trial(t, reached=True) for t in (10.0, 11.0, 12.0, 13.0)]
    trials.append(Trial(20.0, reached=False))
    median = survival.median_seconds(trials)
    assert median is not None
    assert example("median") == f"{median.value:.1f} s"
    assert example("expected") == f"{survival.expected_seconds(trials):.1f} s"


def test_accuracy() -> None:
    found = inference.mean_difference([99.44, 99.48, 99.51], [99.45, 99.47, 99.52], GATE_TAIL)
    assert (
        example("accuracy") == f"{found.value:+.3f} points, {found.low:+.3f} to {found.high:+.3f}"
    )


def test_how_many_runs() -> None:
    for name, noise in (("runs", 0.01), ("more", 0.05)):
        generator = random.Random(0)
        values = [generator.gauss(0, 1) for _ in range(2000)]
        scale = noise / Estimate(math.sqrt(sum(v * v for v in values) / 2000), None, None).value
        scaled = [scale * value for value in values]
        spread = inference.spread(scaled, scaled[::-1], paired=False)
        assert spread is not None
        needed = inference.runs_needed(spread, math.log1p(0.05), TAIL, POWER)
        assert example(name) == f"{needed} runs a side"
