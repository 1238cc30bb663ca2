"""What is said of a difference between two sides."""

from __future__ import annotations

import random
from datetime import timedelta

import pytest

from bench.analysis.cases import interleaved, match_cases
from bench.analysis.comparison import Metric, Verdict
from bench.analysis.gate import GateOutcome, Limits, judge, overall_outcome
from bench.analysis.run_sets import RunSet
from bench.records.schema import RunRecord
from tests.factories import compared, make_record, noisy_runs

ACCURACIES = (0.9712, 0.9871, 0.9899, 0.9921, 0.9941, 0.9946)


def test_slower_and_otherwise_the_same() -> None:
    found = compared(noisy_runs(0), noisy_runs(1, slower=1.1))
    assert found.line(Metric.SECONDS_PER_IMAGE).verdict is Verdict.WORSE
    assert found.line(Metric.TIME_TO_TARGET).verdict is Verdict.WORSE
    assert found.line(Metric.ACCURACY).verdict is Verdict.EQUIVALENT
    assert found.line(Metric.CONVERGENCE).verdict is Verdict.ALIKE
    difference = found.line(Metric.SECONDS_PER_IMAGE).difference
    assert difference is not None
    assert difference.value == pytest.approx(1.1, abs=0.02)
    backwards = compared(noisy_runs(1, slower=1.1), noisy_runs(0)).line(Metric.SECONDS_PER_IMAGE)
    assert backwards.verdict is Verdict.BETTER


def test_fast_and_wrong_is_seen() -> None:
    """A backend that computes something else: its losses tell, whatever its last accuracy."""
    found = compared(noisy_runs(0), noisy_runs(1, loss=1.3))
    assert found.line(Metric.CONVERGENCE).verdict is Verdict.APART
    findings = judge(
        match_cases(
            RunSet("a", tuple(noisy_runs(0))),
            RunSet("b", tuple(noisy_runs(1, loss=1.3))),
        ),
        [found],
        Limits(slower=0.05),
    )
    assert overall_outcome(findings) is GateOutcome.REGRESSION


def test_less_accurate_is_seen_and_nearly_equal_is_not_called_so_without_proof() -> None:
    worse = compared(noisy_runs(0), noisy_runs(1, accuracy=0.9930)).line(Metric.ACCURACY)
    assert worse.verdict is Verdict.WORSE
    assert worse.difference is not None
    assert worse.difference.value == pytest.approx(-0.15, abs=0.03)
    few = compared(noisy_runs(0, count=2), noisy_runs(1, count=2)).line(Metric.ACCURACY)
    assert few.verdict is Verdict.UNCLEAR


def test_runs_that_missed_the_target_make_it_dearer() -> None:
    base = noisy_runs(0, count=6)
    misses = noisy_runs(1, count=3, accuracy=0.9920, protocol={"target_accuracy": 0.994})
    short = [
        make_record(
            accuracies=(0.98, 0.99), benchmark_id="c" * 32, started_at=r.started_at, seed=seed
        )
        for seed, r in enumerate(misses, start=7)
    ]
    same_recipe = [r.model_copy(update={"recipe": base[0].recipe}) for r in short]
    found = compared(base, [*noisy_runs(2, count=3), *same_recipe])
    line = found.line(Metric.TIME_TO_TARGET)
    assert "reached by 6/6 and 3/6" in line.note
    assert line.difference is not None
    assert line.difference.value > 1
    assert found.line(Metric.SAMPLES_TO_TARGET).verdict is Verdict.ABSENT


def test_turns_are_recognised_and_cancel_what_both_sides_share() -> None:
    """The machine slows down threefold in between; the pairs do not care."""
    start = make_record().started_at
    base: list[RunRecord] = []
    new: list[RunRecord] = []
    generator = random.Random(0)
    for index in range(10):
        drift = 3.0 if index % 3 == 0 else 1.0
        for side, slower in ((base, 1.0), (new, 1.05)):
            side.append(
                make_record(
                    train_seconds=6.5 * drift * slower * generator.lognormvariate(0, 0.005),
                    seed=index,
                    started_at=start + timedelta(minutes=2 * index + (side is new)),
                )
            )
    assert interleaved(base, new)
    found = compared(base, new)
    assert found.paired
    assert found.line(Metric.SECONDS_PER_IMAGE).verdict is Verdict.WORSE
    later = [r.model_copy(update={"started_at": r.started_at + timedelta(hours=9)}) for r in new]
    unpaired = compared(base, later)
    assert not unpaired.paired
    assert unpaired.line(Metric.SECONDS_PER_IMAGE).verdict is Verdict.UNCLEAR


def test_the_same_seeds_by_turns_cancel_what_the_seed_decides() -> None:
    """The new side is 0.02 points worse with every seed; between seeds there are 0.3."""
    start = make_record().started_at
    base: list[RunRecord] = []
    new: list[RunRecord] = []
    for index in range(8):
        for side, worse in ((base, 0.0), (new, 0.0002)):
            final = round(0.9930 + 0.0004 * index - worse, 4)
            side.append(
                make_record(
                    accuracies=(*ACCURACIES[:-1], final),
                    seed=index,
                    started_at=start + timedelta(minutes=2 * index + (side is new)),
                )
            )
    line = compared(base, new).line(Metric.ACCURACY)
    assert line.verdict is Verdict.EQUIVALENT
    assert line.difference is not None
    assert line.difference.value == pytest.approx(-0.02)
    other = [record.model_copy(update={"seed": record.seed + 100}) for record in new]
    assert compared(base, other).line(Metric.ACCURACY).verdict is Verdict.UNCLEAR


def test_more_comparisons_make_each_more_careful() -> None:
    base, new = noisy_runs(0), noisy_runs(1, slower=1.02)
    one, ten = (
        compared(base, new, comparisons).line(Metric.SECONDS_PER_IMAGE).difference
        for comparisons in (1, 10)
    )
    assert one is not None
    assert ten is not None
    assert None not in (one.low, one.high, ten.low, ten.high)
    assert ten.low < one.low < one.high < ten.high  # type: ignore[operator]
