from __future__ import annotations

import itertools
import math
import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from pydantic import ValidationError

from bench.analysis import metrics, result_warnings
from bench.analysis.result_warnings import ResultWarning
from bench.records.schema import LapKind, Status
from bench.stats import summary
from bench.stats.anomalies import find_outliers
from bench.stats.student_t import t_above
from bench.stats.summary import MISSED, MetricSummary, summarize
from tests.factories import make_benchmark, make_record
from tests.stats.simulations import SIMULATIONS, Draw, at_most

ACCURACIES = st.lists(st.sampled_from([0.98, 0.9939, 0.994, 0.9951]), max_size=8)
SPANS = st.floats(1e-3, 1e3)
VALUES = st.floats(1e-3, 1e6)


@given(ACCURACIES, SPANS, SPANS, SPANS)
def test_time_to_target_runs_from_the_clocks_start_to_the_end_of_the_evaluation_that_has_it(
    accuracies: list[float], init: float, train: float, evaluation: float
) -> None:
    record = make_record(
        accuracies=accuracies, init_seconds=init, train_seconds=train, eval_seconds=evaluation
    )
    epochs = next((n for n, accuracy in enumerate(accuracies, 1) if accuracy >= 0.994), None)
    if epochs is None:
        assert metrics.time_to_target_seconds(record) is None
        assert metrics.train_time_to_target_seconds(record) is None
        assert metrics.cold_time_to_target_seconds(record) is None
        return
    whole = init + epochs * (train + evaluation)
    assert metrics.time_to_target_seconds(record) == pytest.approx(whole)
    assert metrics.train_time_to_target_seconds(record) == pytest.approx(epochs * train)
    # The factory's process takes 4.5 s to start, and its warm-up 3 s.
    assert metrics.cold_time_to_target_seconds(record) == pytest.approx(7.5 + whole)


def test_the_clock_is_not_paused_between_laps() -> None:
    laps = [
        _lap(LapKind.INIT, None, 0.0, 1.0),
        _lap(LapKind.TRAIN, 1, 2.0, 5.0),  # one second after init's end
        _lap(LapKind.EVAL, 1, 9.0, 0.5),  # two after training's
    ]
    record = make_record(accuracies=[0.995], laps=laps)
    assert metrics.time_to_target_seconds(record) == 9.5
    assert metrics.train_time_to_target_seconds(record) == 5.0
    assert metrics.cold_time_to_target_seconds(record) is None  # nobody timed what went before


def test_laps_that_are_not_there_make_no_numbers() -> None:
    record = make_record(accuracies=[0.995], laps=[])
    assert metrics.time_to_target_seconds(record) is None
    assert metrics.train_time_to_target_seconds(record) is None
    assert metrics.images_per_second(record) is None
    assert [metrics.seconds_of(record, kind) for kind in LapKind] == [None] * len(LapKind)
    assert metrics.best_accuracy(make_record(accuracies=[])) is None


def test_sums_of_laps() -> None:
    record = make_record(accuracies=[0.98, 0.99], train_seconds=6.5, eval_seconds=0.5)
    assert metrics.seconds_of(record, LapKind.TRAIN) == 13.0
    assert metrics.seconds_of(record, LapKind.EVAL) == 1.0
    assert metrics.seconds_of(record, LapKind.STARTUP, LapKind.WARMUP) == 7.5


def test_throughput_leaves_out_an_epoch_that_was_cut_short() -> None:
    whole = make_record(accuracies=[0.98, 0.99], samples=60_000, train_seconds=10.0)
    assert metrics.images_per_second(whole) == 6_000
    laps = [lap.model_dump() for lap in whole.laps] + [_lap(LapKind.TRAIN, 3, 30.0, 9.0)]
    cut = make_record(accuracies=[0.98, 0.99], samples=60_000, laps=laps)
    assert metrics.images_per_second(cut) == 6_000


def test_best_is_not_last() -> None:
    record = make_record(accuracies=[0.98, 0.9951, 0.9949])
    assert metrics.best_accuracy(record) == 0.9951
    assert record.final_accuracy == 0.9949


# --- Across runs


@given(st.lists(VALUES | st.just(MISSED), max_size=9))
def test_median_counts_a_miss_as_longer_than_anything(values: list[float]) -> None:
    median = summarize(values).median
    missed = values.count(MISSED)
    if 2 * missed >= len(values):
        assert median is None
        return
    assert median is not None
    # What a median is, whatever the formula: no more than half lie strictly on either side.
    assert 2 * sum(value < median for value in values) <= len(values)
    assert 2 * sum(value > median for value in values) <= len(values)


@given(st.lists(VALUES, min_size=1, max_size=9))
def test_mean_and_interval_are_those_of_the_textbook(values: list[float]) -> None:
    summary = summarize(values)
    count = len(values)
    mean = sum(values) / count
    assert summary.count == count
    assert summary.mean == pytest.approx(mean)
    if count < 3:
        assert (summary.low, summary.high) == (None, None)
        return
    # The variance as half the mean squared difference of all pairs, which needs no mean.
    pairs = list(itertools.combinations(values, 2))
    variance = sum((a - b) ** 2 for a, b in pairs) / 2 / len(pairs)
    half = t_above(count - 1, 0.025) * math.sqrt(variance / count)
    assert summary.low == pytest.approx(mean - half, abs=1e-9 * mean)
    assert summary.high == pytest.approx(mean + half)


def test_a_worked_interval() -> None:
    summary = summarize([41.0, 42.0, 43.0])
    assert (summary.median, summary.mean) == (42.0, 42.0)
    assert summary.low == pytest.approx(39.5159, abs=1e-4)
    assert summary.high == pytest.approx(44.4841, abs=1e-4)


def test_one_miss_takes_mean_and_interval_away() -> None:
    summary = summarize([41.0, 42.0, 43.0, MISSED])
    assert summary == MetricSummary(count=4, median=42.5, olympic=42.5)


def test_nothing_and_too_much() -> None:
    assert summarize([]) == summary.MetricSummary(count=0)
    assert summarize([1e308, -1e308, 1.7e308]).high is None  # no float holds it


@pytest.mark.parametrize(
    ("degrees", "value"),
    [
        *((1, 12.7062), (2, 4.3027), (4, 2.7764), (9, 2.2622), (30, 2.0423)),
        *((31, 2.0395), (40, 2.0211), (60, 2.0003), (120, 1.9799), (1000, 1.9623)),
    ],
)
def test_t_quantile_is_that_of_the_tables(degrees: int, value: float) -> None:
    assert t_above(degrees, 0.025) == pytest.approx(value, abs=5e-5)


@pytest.mark.parametrize("degrees", [*range(1, 41), 99, 1000])
def test_t_quantile_leaves_a_fortieth_above_it(degrees: int) -> None:
    assert _t_below(t_above(degrees, 0.025), degrees) == pytest.approx(0.975, abs=2e-6)


# --- Warnings


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, []),
        ({"load": {"busy_seconds": 90.0}}, [ResultWarning.BUSY_MACHINE]),
        ({"load": {"busy_seconds": None}}, []),
        ({"load": {"own_seconds": None}}, []),
        (
            {"load": {"busy_seconds": 90.0, "elapsed_seconds": 0.0}},
            [ResultWarning.IMPOSSIBLE_LOAD],
        ),
        # A little less than our own: two clocks, no negative load.
        ({"load": {"busy_seconds": 76.0}}, []),
        ({"load": {"busy_seconds": 10.0}}, [ResultWarning.IMPOSSIBLE_LOAD]),
        ({"environment": {"dirty": True}}, [ResultWarning.DIRTY_COMMIT]),
        ({"environment": {"dirty": None, "commit": None}}, []),
        ({"accuracies": [0.98]}, [ResultWarning.MISSED_TARGET]),
        ({"status": Status.DIVERGED, "accuracies": []}, [ResultWarning.NOT_COMPLETED]),
        ({"recipe": {"evaluation_split": "validation"}}, [ResultWarning.NOT_THE_TEST_SET]),
    ],
)
def test_run_warnings(overrides: dict[str, Any], expected: list[ResultWarning]) -> None:
    assert result_warnings.run_warnings(make_record(**overrides)) == expected


def test_the_machine_is_busy_from_a_twentieth_of_its_cores() -> None:
    # 43.2 s on two cores are 86.4 core-seconds, a twentieth of which is 4.32.
    below = make_record(load={"busy_seconds": 84.3, "own_seconds": 80.0})
    above = make_record(load={"busy_seconds": 84.4, "own_seconds": 80.0})
    assert metrics.busy_share(below) == pytest.approx(4.3 / 86.4)
    assert ResultWarning.BUSY_MACHINE not in result_warnings.run_warnings(below)
    assert ResultWarning.BUSY_MACHINE in result_warnings.run_warnings(above)


def test_benchmark_warnings_say_how_many_runs_they_are_about() -> None:
    good = make_benchmark((6.4, 6.5))
    bad = make_benchmark((6.6, 6.7), accuracies=[0.98], environment={"dirty": True})
    assert result_warnings.benchmark_warnings(good + bad) == {
        ResultWarning.MISSED_TARGET: 2,
        ResultWarning.DIRTY_COMMIT: 2,
        ResultWarning.REPEATED_SEEDS: 2,
    }


def test_few_completed_runs_and_runs_that_are_not_here() -> None:
    runs = make_benchmark((6.4, 6.5, 6.7))
    assert result_warnings.benchmark_warnings(runs) == {}
    assert result_warnings.benchmark_warnings(runs[:2]) == {
        ResultWarning.FEW_RUNS: None,
        ResultWarning.RUNS_MISSING: None,
    }
    stopped = make_benchmark((6.4, 6.5), status=Status.INTERRUPTED, protocol={"runs": 2})
    assert result_warnings.benchmark_warnings(stopped) == {
        ResultWarning.NOT_COMPLETED: 2,
        ResultWarning.FEW_RUNS: None,
    }


def test_numbers_beyond_all_range_are_no_record() -> None:
    with pytest.raises(ValidationError, match="less than or equal"):
        make_record(accuracies=[0.98], samples=10**400)
    with pytest.raises(ValidationError, match="less than or equal"):
        make_record(environment={"usable_cores": 10**400}, load={"busy_seconds": 1e9})


def _lap(kind: LapKind, epoch: int | None, start: float, seconds: float) -> dict[str, Any]:
    return {"kind": kind, "epoch": epoch, "start_seconds": start, "seconds": seconds}


def _t_below(t: float, degrees: int) -> float:
    """Student's distribution function, by Simpson's rule on its density from 0 to t."""
    log_peak = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2)
    peak = math.exp(log_peak) / math.sqrt(degrees * math.pi)
    steps = 2000
    width = t / steps

    def density(x: float) -> float:
        return peak * math.pow(1 + x * x / degrees, -(degrees + 1) / 2)

    inner = sum((4 if step % 2 else 2) * density(step * width) for step in range(1, steps))
    return 0.5 + (density(0) + inner + density(t)) * width / 3


def test_a_run_that_lies_far_from_the_others_is_warned_of() -> None:
    usual = (6.4, 6.5, 6.45, 6.55, 6.5)
    assert ResultWarning.OUTLIER not in result_warnings.benchmark_warnings(make_benchmark(usual))
    warnings = result_warnings.benchmark_warnings(make_benchmark((*usual, 19.0)))
    assert warnings[ResultWarning.OUTLIER] == 1


def test_too_few_runs_and_small_differences_make_no_outlier() -> None:
    # By hyperfine's rule alone each has an outlier: two of the three first times are equal.
    for times in ((16.0, 17.0, 17.0), (6.4, 6.5, 6.45, 6.55, 19.0)):
        assert find_outliers(times)
        assert ResultWarning.OUTLIER not in of_times([*times])
    alike = [6.5, 6.5, 6.5, 6.5, 6.5]
    assert ResultWarning.OUTLIER not in of_times([*alike, 6.8])
    assert ResultWarning.OUTLIER in of_times([*alike, 6.9])


@pytest.mark.parametrize("count", [3, 4, 5, 6, 8, 10, 20])
@pytest.mark.parametrize(
    ("draw", "rate"),
    [
        (lambda r: r.gauss(1, 0.01), 0.001),
        (lambda r: r.gauss(1, 0.05), 0.015),
        (lambda r: r.lognormvariate(0, 0.05), 0.015),
        (lambda r: 1 + 0.01 * r.expovariate(1), 0.02),
        (lambda r: 1 + 0.05 * r.expovariate(1), 0.07),
    ],
    ids=["normal 1 %", "normal 5 %", "lognormal 5 %", "exponential 1 %", "exponential 5 %"],
)
def test_outliers_are_seldom_seen_where_there_are_none(draw: Draw, rate: float, count: int) -> None:
    """The rates of docs/statistics.md."""
    generator = random.Random(count)
    seen = sum(
        bool(result_warnings.far_times([draw(generator) for _ in range(count)]))
        for _ in range(SIMULATIONS)
    )
    assert seen <= at_most(rate)


def test_three_runs_would_raise_one_false_alarm_in_ten() -> None:
    generator = random.Random(3)
    seen = sum(
        bool(find_outliers([generator.gauss(1, 0.05) for _ in range(3)]))
        for _ in range(SIMULATIONS)
    )
    assert seen > 0.07 * SIMULATIONS


@given(st.lists(VALUES, min_size=3, max_size=12), st.integers(0, 3))
def test_robust_summaries_against_numpy_and_mlperfs_rule(values: list[float], missed: int) -> None:
    everything = [*values, *[MISSED] * missed]
    summary = summarize(everything)
    # In place of infinity, of which numpy makes NaN: whatever holds a part of it is as great.
    far = [1e300 if value == MISSED else value for value in everything]
    low, high = np.quantile(far, [0.25, 0.75])
    assert summary.iqr == (None if high > 1e200 else pytest.approx(high - low, abs=1e-6))
    if missed > 1:
        assert summary.olympic is None
    else:
        kept = sorted(everything)[1:-1]
        assert summary.olympic == pytest.approx(sum(kept) / len(kept))


def of_times(times: list[float]) -> set[ResultWarning]:
    return set(result_warnings.benchmark_warnings(make_benchmark(times)))


def test_a_machine_that_changed_meanwhile_is_warned_of() -> None:
    generator = random.Random(1)
    cool = [generator.gauss(6.0, 0.05) for _ in range(6)]
    hot = [1.1 * seconds for seconds in cool]
    assert ResultWarning.DRIFT in of_times([*cool, *hot])
    assert ResultWarning.DRIFT in of_times([*hot, *cool])
    # The same values in no order, too few of them, and a change that is not worth saying.
    assert ResultWarning.DRIFT not in of_times(
        [time for pair in zip(cool, hot, strict=True) for time in pair]
    )
    assert ResultWarning.DRIFT not in of_times([*cool[:3], *hot[:3]])
    assert ResultWarning.DRIFT not in of_times([*cool, *(1.02 * seconds for seconds in cool)])


@pytest.mark.parametrize("count", [8, 12, 20, 100])
def test_drift_is_seldom_seen_where_there_is_none(count: int) -> None:
    generator = random.Random(count)
    seen = sum(
        result_warnings.drifted([generator.lognormvariate(0, 0.3) for _ in range(count)])
        for _ in range(400)
    )
    assert seen <= 13  # a true rate of one in a hundred is exceeded so once in a thousand times


def test_two_states_of_a_machine_are_warned_of() -> None:
    generator = random.Random(2)
    fast = [generator.gauss(6.0, 0.05) for _ in range(6)]
    times = [time for one in fast for time in (one, 1.2 * one)]
    assert ResultWarning.TWO_GROUPS in of_times(times)
    assert ResultWarning.TWO_GROUPS not in of_times(fast + fast)
    near = [time for one in fast for time in (one, 1.03 * one)]
    assert ResultWarning.TWO_GROUPS not in of_times(near)


def test_the_images_that_it_took_to_reach_the_target() -> None:
    record = make_record(accuracies=[0.98, 0.9951, 0.996])
    reached = next(e for e in record.evaluations if e.epoch == record.target_reached_epoch)
    assert metrics.samples_to_target(record) == reached.samples_seen > 0
    assert metrics.samples_to_target(make_record(accuracies=[0.98])) is None
