"""Contradictions within a record, between its counts and its times.

A record holds more than it needs: laps have starts as well as lengths, the meter times the whole
run again, and counts follow from the recipe. An edited number rarely fits all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

from bench.analysis import metrics
from bench.records.schema import Evaluation, Lap, LapKind, RunRecord, Status, first_reached
from bench.stats.sums import exact_sum
from bench.text import quantity

EVALUATED_IMAGES = 10_000
"""Number of images of every evaluation, on the test or the validation images."""
_CLOCK_SECONDS = 1e-3
"""Greatest difference between readings of one clock."""
_BETWEEN_SECONDS = 0.25
"""Greatest time between two laps, when progress is shown; less than a millisecond is usual."""
_BETWEEN_SHARE = 0.2
"""The same as a share of the longer of the two laps, beyond `_BETWEEN_LEAST_SECONDS`."""
_BETWEEN_LEAST_SECONDS = 0.01
"""Time between two laps that is never too long: another program may run in between."""
_ALL_BETWEEN_SHARE = 0.02
"""Greatest share of a run that is in no lap; 0.4 % is the most in the records of this project."""
_ALL_BETWEEN_LEAST_SECONDS = 0.005
_AROUND_SECONDS = 0.25
"""Greatest time between the end of the last lap and the end of the meter, and a share of the run's
time that is added; 2 % and 0.034 s are the most in the records of this project."""
_AROUND_SHARE = 0.02


def find_contradictions(record: RunRecord) -> Iterator[str]:
    """The contradictions, one line each."""
    yield from _counts(record)
    yield from _order(record)
    yield from _times(record)
    yield from _target(record)


def _counts(record: RunRecord) -> Iterator[str]:
    """Epochs, steps and images against the recipe and each other."""
    epochs = [trained.epoch for trained in record.epochs]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"its epochs are {_listed(epochs)}, not 1 to {len(epochs)}"
    batch = record.recipe.get("batch_size")
    if isinstance(batch, int) and batch > 0:
        for trained in record.epochs:
            samples, steps = trained.samples, trained.steps
            if steps != -(-samples // batch):
                yield f"epoch {trained.epoch}: {samples} images are not {steps} batches"
    totals = accumulate(trained.samples for trained in record.epochs)
    images_seen = dict(zip(epochs, totals, strict=True))
    for evaluation in record.evaluations:
        epoch, samples = evaluation.epoch, evaluation.samples
        if samples != EVALUATED_IMAGES:
            yield f"epoch {epoch} was evaluated on {samples} images, not {EVALUATED_IMAGES}"
        if evaluation.samples_seen != images_seen.get(epoch):
            yield f"the evaluation of epoch {epoch} has seen other images than were trained"
    planned, first = (record.recipe.get(name) for name in ("epochs", "evaluate_from_epoch"))
    if record.status is not Status.COMPLETED or not isinstance(planned, int):
        return
    stopped = record.protocol.stop_at_target and record.target_reached_epoch == len(epochs)
    if len(epochs) != planned and not stopped:
        yield f"it says completed after {len(epochs)} of {planned} epochs"
    evaluated = [evaluation.epoch for evaluation in record.evaluations]
    expected = [epoch for epoch in epochs if epoch >= (first if isinstance(first, int) else 1)]
    if evaluated != expected:
        yield (
            f"it was evaluated after epochs {_listed(evaluated)}; "
            f"the recipe says {_listed(expected)}"
        )


def _order(record: RunRecord) -> Iterator[str]:
    """One lap for each epoch and evaluation, in order of time."""
    evaluated = {evaluation.epoch for evaluation in record.evaluations}
    expected: list[tuple[LapKind, int | None]] = [(LapKind.INIT, None)]
    for epoch in record.epochs:
        expected.append((LapKind.TRAIN, epoch.epoch))
        if epoch.epoch in evaluated:
            expected.append((LapKind.EVAL, epoch.epoch))
    uncounted = (LapKind.CHECKPOINT, LapKind.RESUME)
    actual = [(lap.kind, lap.epoch) for lap in _laps(record) if lap.kind not in uncounted]
    if record.status is not Status.COMPLETED:
        # The run may have ended before its first step, or between a lap and its count.
        shorter = min(len(actual), len(expected))
        agree = actual[:shorter] == expected[:shorter] and abs(len(actual) - len(expected)) <= 1
    else:
        agree = actual == expected
    if not agree:
        yield "its laps are not those of the epochs and evaluations it has, in their order"


def _times(record: RunRecord) -> Iterator[str]:
    """Laps against each other and against the meter."""
    laps = _laps(record)
    if not laps:
        return
    if abs(laps[0].start_seconds) > _CLOCK_SECONDS:
        yield f"its clock starts {quantity(laps[0].start_seconds)} s before its first lap"
    alone = record.setup.processes == 1
    for before, after in pairwise(laps):
        gap = after.start_seconds - before.start_seconds - before.seconds
        between = f"{_name(before)} and {_name(after)}"
        # With several processes a lap has the latest start and the longest time of all ranks.
        if alone and gap < -_CLOCK_SECONDS:
            yield f"{between} overlap by {quantity(-gap)} s"
        if gap > _longest_gap(before, after):
            yield f"{quantity(gap)} s between {between} are in no lap"
        if after.start_seconds < before.start_seconds:
            yield f"{_name(after)} starts before {_name(before)}"
    end = max(lap.start_seconds + lap.seconds for lap in laps)
    outside = _outside_seconds(laps)
    if outside > max(_ALL_BETWEEN_LEAST_SECONDS, _ALL_BETWEEN_SHARE * end):
        yield f"{quantity(outside)} s of its {quantity(end)} s are between laps, in none of them"
    # The meter of a resumed run measures its last attempt only.
    if record.status is Status.COMPLETED and not record.resumed:
        around = record.load.elapsed_seconds - end
        if around > _AROUND_SECONDS + _AROUND_SHARE * end or (alone and around < -_CLOCK_SECONDS):
            yield (
                f"its laps end after {quantity(end)} s, but the meter was stopped after "
                f"{quantity(record.load.elapsed_seconds)} s"
            )


def _target(record: RunRecord) -> Iterator[str]:
    """The time to target from the raw laps, computed in another way than for the tables."""
    reached = first_reached(_judged(record), record.protocol.target_accuracy)
    stated = metrics.time_to_target_seconds(record)
    if reached is None:
        if stated is not None:
            yield f"it has a time to target, {quantity(stated)} s, and never reached it"
        return
    kinds = [(lap.kind, lap.epoch) for lap in _laps(record)]
    if (LapKind.EVAL, reached) not in kinds or stated is None:
        yield f"it reached the target after epoch {reached}, but no lap says when"
        return
    until = _laps(record)[: kinds.index((LapKind.EVAL, reached)) + 1]
    spent = exact_sum(lap.seconds for lap in until)
    outside = max(_ALL_BETWEEN_LEAST_SECONDS, _ALL_BETWEEN_SHARE * spent)
    most = spent + max(outside, _CLOCK_SECONDS * len(until))
    alone = record.setup.processes == 1
    if stated > most or (alone and stated < spent - _CLOCK_SECONDS * len(until)):
        yield (
            f"its laps up to the target take {quantity(spent)} s together, its time to target "
            f"is {quantity(stated)} s"
        )


def _judged(record: RunRecord) -> list[Evaluation]:
    """The evaluations of which the first at or above the target counts."""
    if record.protocol.version < 2 or record.division == "closed":
        return record.evaluations
    return record.evaluations[-1:] if record.status is Status.COMPLETED else []


def _longest_gap(before: Lap, after: Lap) -> float:
    """The longest time between two laps; it is little beside the laps themselves."""
    relative = _BETWEEN_LEAST_SECONDS + _BETWEEN_SHARE * max(before.seconds, after.seconds)
    return min(_BETWEEN_SECONDS, relative)


def _outside_seconds(laps: list[Lap]) -> float:
    """The time between laps; several ranks' laps overlap, which counts as none."""
    return exact_sum(
        max(0.0, after.start_seconds - before.start_seconds - before.seconds)
        for before, after in pairwise(laps)
    )


def _laps(record: RunRecord) -> list[Lap]:
    """The laps of the run itself."""
    before = (LapKind.STARTUP, LapKind.WARMUP)
    return [lap for lap in record.laps if lap.kind not in before]


def _name(lap: Lap) -> str:
    return lap.kind.value if lap.epoch is None else f"{lap.kind.value} {lap.epoch}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
