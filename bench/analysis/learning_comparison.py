"""Compares two sides in what they learned: final accuracy, and training loss by epoch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev

from bench.analysis.compared_sides import ComparedSides, mean, runs_needed
from bench.analysis.comparison import (
    Metric,
    MetricComparison,
    Verdict,
    no_data,
    verdict_by_sign,
    within_margin,
)
from bench.records.schema import RunRecord
from bench.stats import sample_size, summary
from bench.stats.intervals import Estimate

ACCURACY_MARGIN = 0.05
"""Percentage points within which two accuracies count as equal."""
IMAGE = 0.01
"""Percentage points of one image of the 10,000 in the test set."""
LOSS_MARGIN = 0.10
"""Share by which mean training losses may differ where two implementations agree."""


def compare_accuracy(sides: ComparedSides) -> MetricComparison:
    """The mean accuracies of the last evaluations: equal within the margin, or different."""
    metric = Metric.ACCURACY
    all_runs, sides = sides, sides.once_per_seed()
    values = sides.values(lambda record: record.final_accuracy)
    if values is None:
        return no_data(metric, "no evaluation")
    if sides.base[0].protocol.stop_at_target:
        return no_data(metric, "of runs that stopped at the target, it is the target's")
    if identical := identical_trainings(sides.base, sides.new):
        return _identical(identical)
    base_points, new_points = ([100 * accuracy for accuracy in side] for side in values)
    shown, gate_difference, pass_difference = (
        _at_least_an_image_wide(sides.mean_difference(base_points, new_points, tail))
        for tail in (sides.tail, sides.gate_tail, sides.pass_tail)
    )
    # Two one-sided tests (Schuirmann 1987): equal within the margin, whatever the sign.
    if within_margin(gate_difference, -ACCURACY_MARGIN, ACCURACY_MARGIN):
        verdict = Verdict.EQUIVALENT
    else:
        verdict = verdict_by_sign(shown.negated(), 0.0)
    differences = sides.seed_differences(base_points, new_points)
    spread = (
        stdev(differences)
        if differences
        else sample_size.ratio_spread(base_points, new_points, paired=False)
    )
    return MetricComparison(
        metric=metric,
        base=mean(values[0]),
        new=mean(values[1]),
        difference=shown,
        gate_difference=gate_difference,
        pass_difference=pass_difference,
        verdict=verdict,
        note=_repeats_note(all_runs, sides),
        spread=spread,
        runs_needed=runs_needed(spread, ACCURACY_MARGIN, sides.gate_tail),
    )


def compare_convergence(sides: ComparedSides) -> MetricComparison:
    """Whether the mean training loss agrees, epoch by epoch: two-sided, over all epochs.

    A backend that computes something else shows here even if it trains fast and ends well.
    Source of the idea: MLPerf's reference convergence points, which look at the end only.
    """
    metric = Metric.CONVERGENCE
    sides = sides.once_per_seed()
    if sides.base[0].recipe != sides.new[0].recipe:
        return no_data(metric, "of other recipes, training losses mean other things")
    if sides.fewest_per_side < summary.FEWEST_RUNS:
        return no_data(metric, "fewer than 3 completed runs with different seeds")
    base_losses, new_losses = _log_losses(sides.base), _log_losses(sides.new)
    epochs = sorted(base_losses)
    if not epochs or base_losses.keys() != new_losses.keys():
        return no_data(metric, "not the same epochs")
    tail = sides.tail / len(epochs)
    ratios = {
        epoch: sides.mean_difference(base_losses[epoch], new_losses[epoch], tail).as_ratio()
        for epoch in epochs
    }
    disagreeing = [epoch for epoch, ratio in ratios.items() if _disagrees(ratio)]
    worst = max(disagreeing or epochs, key=lambda epoch: abs(math.log(ratios[epoch].value)))
    if disagreeing:
        verdict = Verdict.APART
    elif all(within_margin(ratio, 1 - LOSS_MARGIN, 1 + LOSS_MARGIN) for ratio in ratios.values()):
        verdict = Verdict.ALIKE
    else:
        verdict = Verdict.UNCLEAR
    return MetricComparison(
        metric=metric,
        base=math.exp(mean(base_losses[worst])),
        new=math.exp(mean(new_losses[worst])),
        difference=ratios[worst],
        gate_difference=ratios[worst],
        pass_difference=ratios[worst],
        verdict=verdict,
        note=f"training loss of epoch {worst}, the most different of {len(epochs)}",
    )


def identical_trainings(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> list[RunRecord]:
    """The new side's runs if each is bit for bit what the base's run of its seed was, else none.

    Equal seeds on the same kernels give bit-equal losses and accuracies: then the code computes the
    same, whatever the spread between seeds is. Fewer than three runs are no claim.
    """
    before = {record.seed: record for record in base}
    same = all(_same_training(before.get(record.seed), record) for record in new)
    return list(new) if same and len(new) >= summary.FEWEST_RUNS else []


def _same_training(base: RunRecord | None, new: RunRecord) -> bool:
    if base is None or base.recipe != new.recipe or base.evaluations != new.evaluations:
        return False
    losses = [epoch.loss for epoch in new.epochs]
    return None not in losses and bool(losses) and base.epochs == new.epochs


def _identical(runs: Sequence[RunRecord]) -> MetricComparison:
    """Accuracies that are equal because the trainings are."""
    accuracy = mean([run.final_accuracy for run in runs if run.final_accuracy is not None])
    zero = Estimate(0.0, 0.0, 0.0)
    return MetricComparison(
        metric=Metric.ACCURACY,
        base=accuracy,
        new=accuracy,
        difference=zero,
        gate_difference=zero,
        pass_difference=zero,
        verdict=Verdict.EQUIVALENT,
        note=f"{len(runs)} trainings are identical, seed by seed",
        spread=0.0,
    )


def _repeats_note(all_runs: ComparedSides, once: ComparedSides) -> str:
    """How many seeds there are, where runs repeat one."""
    if all_runs is once:
        return ""
    return (
        f"{len(once.base)} and {len(once.new)} different seeds; the same seed again is no further "
        "training"
    )


def _at_least_an_image_wide(difference: Estimate) -> Estimate:
    """The interval, widened to one test image each way: accuracies are no finer than that."""
    if difference.low is None or difference.high is None:
        return difference
    low, high = difference.value - IMAGE, difference.value + IMAGE
    return Estimate(difference.value, min(difference.low, low), max(difference.high, high))


def _disagrees(ratio: Estimate) -> bool:
    """Whether the losses are shown to differ, and by more than the margin."""
    if ratio.low is None or ratio.high is None:
        return False
    return not ratio.low <= 1 <= ratio.high and abs(ratio.value - 1) > LOSS_MARGIN


def _log_losses(records: Sequence[RunRecord]) -> dict[int, list[float]]:
    """Logarithms of the training losses, by epoch, of the epochs that every run has."""
    by_epoch: dict[int, list[float]] = {}
    for record in records:
        for epoch in record.epochs:
            if epoch.loss is not None and epoch.loss > 0:
                by_epoch.setdefault(epoch.epoch, []).append(math.log(epoch.loss))
    return {epoch: logs for epoch, logs in by_epoch.items() if len(logs) == len(records)}
