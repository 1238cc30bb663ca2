"""Compares two sides in their times, and in the images that they needed."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from bench.analysis import metrics
from bench.analysis.compared_sides import ComparedSides, runs_needed
from bench.analysis.comparison import (
    Metric,
    MetricComparison,
    Verdict,
    no_data,
    verdict_by_sign,
    within_margin,
)
from bench.records.schema import RunRecord
from bench.stats import attempts, sample_size, summary
from bench.stats.attempts import Attempt
from bench.stats.intervals import fisher_exact
from bench.stats.rcp import epochs_allowed, olympic_mean


def compare_time_to_target(sides: ComparedSides) -> MetricComparison:
    """The time to target where all runs reached it; otherwise the seconds per success."""
    metric = Metric.TIME_TO_TARGET
    sides = sides.once_per_seed()  # How many images a run needs is decided by its seed.
    if sides.values(metrics.time_to_target_seconds):
        return compare_ratios(sides, metric, metrics.time_to_target_seconds)
    if sides.fewest_per_side < summary.FEWEST_RUNS:
        return no_data(metric, "fewer than 3 completed runs, and not all reached it")
    base, new = ([metrics.attempt_of(run) for run in side] for side in (sides.base, sides.new))
    counts = [f"{sum(time.reached for time in side)}/{len(side)}" for side in (base, new)]
    note = f"reached by {counts[0]} and {counts[1]}: seconds spent for each success"
    shown, gate_difference, pass_difference = (
        attempts.seconds_per_success_ratio(base, new, tail)
        for tail in (sides.tail, sides.gate_tail, sides.pass_tail)
    )
    if shown is None or gate_difference is None or pass_difference is None:
        verdict = _verdict_by_share_reached(base, new, sides.tail)
        return MetricComparison(metric=metric, per_success=True, verdict=verdict, note=note)
    spread = attempts.ratio_spread(shown, sides.fewest_per_side, sides.tail)
    return MetricComparison(
        metric=metric,
        per_success=True,
        base=attempts.seconds_per_success(base),
        new=attempts.seconds_per_success(new),
        difference=shown,
        gate_difference=gate_difference,
        pass_difference=pass_difference,
        verdict=verdict_by_sign(shown, 1.0),
        note=note,
        fewest_runs=attempts.FEWEST_FOR_BOOTSTRAP,
        fewest_shown=attempts.FEWEST_FOR_BOOTSTRAP,
        spread=spread,
        runs_needed=runs_needed(spread, math.log1p(sides.difference_sought), sides.tail),
    )


def compare_seconds_per_image(sides: ComparedSides) -> MetricComparison:
    """The training time per image."""
    return compare_ratios(sides, Metric.SECONDS_PER_IMAGE, _seconds_per_image)


def compare_samples_to_target(sides: ComparedSides) -> MetricComparison:
    """The images that each side needed, with MLPerf's rule on how few may be luck.

    MLPerf's rule has one end; here both ends are asked about.
    """
    sides = sides.once_per_seed()
    line = compare_ratios(sides, Metric.SAMPLES_TO_TARGET, metrics.samples_to_target)
    values = sides.values(metrics.samples_to_target)
    if line.verdict is Verdict.ABSENT or values is None:
        return line
    base, new = values
    allowed, mean = epochs_allowed(base, len(new)), olympic_mean(new)
    if allowed is None or mean is None or allowed.fewest <= mean <= allowed.most:
        return line
    fewer = mean < allowed.fewest
    end = allowed.fewest if fewer else allowed.most
    note = (
        f"MLPerf's rule calls {'fewer' if fewer else 'more'} than {end:,.0f} no luck (olympic "
        f"means): {mean:,.0f}"
    )
    return replace(line, note=note)


def compare_ratios(
    sides: ComparedSides, metric: Metric, value: Callable[[RunRecord], float | None]
) -> MetricComparison:
    """The ratio new to base of something positive that every run should have, by ranks."""
    values = sides.values(value)
    if values is None:
        lacks = "was not timed" if metric is Metric.SECONDS_PER_IMAGE else "missed the target"
        return no_data(metric, f"a run {lacks}")
    if min(*values[0], *values[1]) <= 0:
        return no_data(metric, "a run has a value of zero")
    base_logs, new_logs = ([math.log(number) for number in side] for side in values)
    shown, gate_difference, pass_difference = (
        sides.location_shift(base_logs, new_logs, tail).as_ratio()
        for tail in (sides.tail, sides.gate_tail, sides.pass_tail)
    )
    spread = sample_size.ratio_spread(base_logs, new_logs, sides.paired)
    needed = runs_needed(spread, math.log1p(sides.difference_sought), sides.tail)
    if needed is not None:
        needed = max(needed, sample_size.fewest_runs(sides.tail, sides.paired))
    verdict = verdict_by_sign(shown, 1.0)
    margin = 1 + sides.difference_sought
    if verdict is Verdict.UNCLEAR and within_margin(gate_difference, 1 / margin, margin):
        verdict = Verdict.EQUIVALENT
    base, new = (summary.summarize(side).median for side in values)
    return MetricComparison(
        metric=metric,
        base=base,
        new=new,
        difference=shown,
        gate_difference=gate_difference,
        pass_difference=pass_difference,
        verdict=verdict,
        fewest_runs=sample_size.fewest_runs(sides.pass_tail, sides.paired),
        fewest_shown=sample_size.fewest_runs(sides.tail, sides.paired),
        spread=spread,
        runs_needed=needed,
    )


def _verdict_by_share_reached(
    base: Sequence[Attempt], new: Sequence[Attempt], tail: float
) -> Verdict:
    """Where one side never reached the target: whether chance explains that."""
    counts = [(sum(time.reached for time in side), len(side)) for side in (base, new)]
    if not counts[0][0] and not counts[1][0]:
        return Verdict.UNREACHED
    if fisher_exact(*counts[0], *counts[1]) <= tail:
        return Verdict.WORSE
    fewer_in_base = fisher_exact(*counts[1], *counts[0])
    return Verdict.BETTER if fewer_in_base <= tail else Verdict.UNCLEAR


def _seconds_per_image(record: RunRecord) -> float | None:
    rate = metrics.images_per_second(record)
    return 1 / rate if rate else None
