"""Whether a record's numbers agree with each other: what was timed with what was counted.

A record holds more than it needs: laps have starts as well as lengths, the meter has timed the
whole run once more, counts follow from the recipe. An edited number seldom fits all of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate, pairwise

from bench.analysis import metrics
from bench.records.schema import Lap, LapKind, RunRecord, Status, first_reached
from bench.text import quantity

EVALUATED_IMAGES = 10_000
"""Images that every evaluation counts, of either split."""
_CLOCK_SECONDS = 1e-3
"""What readings of one clock may differ by."""
_BETWEEN_SECONDS = 0.25
"""What may lie between two laps, where the progress is shown; some milliseconds do."""
_AROUND_SECONDS = 2.0
"""And between the last lap's end and the meter's."""


def find_contradictions(record: RunRecord) -> Iterator[str]:
    """What cannot be so, each in one line."""
    yield from _counts(record)
    yield from _order(record)
    yield from _times(record)
    yield from _target(record)


def _counts(record: RunRecord) -> Iterator[str]:
    """Epochs, steps and images against the recipe and each other."""
    epochs = [epoch.epoch for epoch in record.epochs]
    if epochs != list(range(1, len(epochs) + 1)):
        yield f"its epochs are {_listed(epochs)}, not 1 to {len(epochs)}"
    batch = record.recipe.get("batch_size")
    if isinstance(batch, int) and batch > 0:
        for epoch in record.epochs:
            if epoch.steps != -(-epoch.samples // batch):
                yield f"epoch {epoch.epoch}: {epoch.samples} images are not {epoch.steps} batches"
    seen = dict(zip(epochs, accumulate(epoch.samples for epoch in record.epochs), strict=True))
    for one in record.evaluations:
        if one.samples != EVALUATED_IMAGES:
            yield f"epoch {one.epoch} was evaluated on {one.samples} images, not {EVALUATED_IMAGES}"
        if one.samples_seen != seen.get(one.epoch):
            yield f"the evaluation of epoch {one.epoch} has seen other images than were trained"
    planned, first = (record.recipe.get(name) for name in ("epochs", "evaluate_from_epoch"))
    if record.status is not Status.COMPLETED or not isinstance(planned, int):
        return
    stopped = record.protocol.stop_at_target and record.target_reached_epoch == len(epochs)
    if len(epochs) != planned and not stopped:
        yield f"it says completed after {len(epochs)} of {planned} epochs"
    evaluated = [one.epoch for one in record.evaluations]
    due = [epoch for epoch in epochs if epoch >= (first if isinstance(first, int) else 1)]
    if evaluated != due:
        yield f"it was evaluated after epochs {_listed(evaluated)}; the recipe says {_listed(due)}"


def _order(record: RunRecord) -> Iterator[str]:
    """A lap for each thing that was counted, in the order it happened."""
    evaluated = {one.epoch for one in record.evaluations}
    expected: list[tuple[LapKind, int | None]] = [(LapKind.INIT, None)]
    for epoch in record.epochs:
        expected.append((LapKind.TRAIN, epoch.epoch))
        if epoch.epoch in evaluated:
            expected.append((LapKind.EVAL, epoch.epoch))
    aside = (LapKind.CHECKPOINT, LapKind.RESUME)  # counted nowhere
    found = [(lap.kind, lap.epoch) for lap in _laps(record) if lap.kind not in aside]
    if record.status is not Status.COMPLETED:
        # It may have ended before its first step, or between a lap and what was counted in it.
        shorter = min(len(found), len(expected))
        agree = found[:shorter] == expected[:shorter] and abs(len(found) - len(expected)) <= 1
    else:
        agree = found == expected
    if not agree:
        yield "its laps are not those of the epochs and evaluations it has, in their order"


def _times(record: RunRecord) -> Iterator[str]:
    laps = _laps(record)
    if not laps:
        return
    if abs(laps[0].start_seconds) > _CLOCK_SECONDS:
        yield f"its clock starts {quantity(laps[0].start_seconds)} s before its first lap"
    alone = record.setup.processes == 1
    for before, after in pairwise(laps):
        gap = after.start_seconds - before.start_seconds - before.seconds
        between = f"{_name(before)} and {_name(after)}"
        # Of several processes a lap has the latest start and the longest time, not one rank's.
        if alone and gap < -_CLOCK_SECONDS:
            yield f"{between} overlap by {quantity(-gap)} s"
        if gap > _BETWEEN_SECONDS:
            yield f"{quantity(gap)} s between {between} are in no lap"
        if after.start_seconds < before.start_seconds:
            yield f"{_name(after)} starts before {_name(before)}"
    # The meter of a resumed run has seen its last part alone.
    if record.status is Status.COMPLETED and not record.resumed:
        end = max(lap.start_seconds + lap.seconds for lap in laps)
        around = record.load.elapsed_seconds - end
        if around > _AROUND_SECONDS or (alone and around < -_CLOCK_SECONDS):
            yield (
                f"its laps end after {quantity(end)} s, but the meter was stopped after "
                f"{quantity(record.load.elapsed_seconds)} s"
            )


def _target(record: RunRecord) -> Iterator[str]:
    """The time to target from the raw laps, by another way than the tables go."""
    reached = first_reached(record.evaluations, record.protocol.target_accuracy)
    shown = metrics.time_to_target_seconds(record)
    if reached is None:
        if shown is not None:
            yield f"it has a time to target, {quantity(shown)} s, and never reached it"
        return
    kinds = [(lap.kind, lap.epoch) for lap in _laps(record)]
    if (LapKind.EVAL, reached) not in kinds or shown is None:
        yield f"it reached the target after epoch {reached}, but no lap says when"
        return
    until = _laps(record)[: kinds.index((LapKind.EVAL, reached)) + 1]
    spent = sum(lap.seconds for lap in until)
    most = spent + _BETWEEN_SECONDS * len(until)
    alone = record.setup.processes == 1
    if shown > most or (alone and shown < spent - _CLOCK_SECONDS * len(until)):
        yield (
            f"its laps up to the target take {quantity(spent)} s together, its time to target "
            f"is {quantity(shown)} s"
        )


def _laps(record: RunRecord) -> list[Lap]:
    """Those of the run itself."""
    before = (LapKind.STARTUP, LapKind.WARMUP)
    return [lap for lap in record.laps if lap.kind not in before]


def _name(lap: Lap) -> str:
    return lap.kind.value if lap.epoch is None else f"{lap.kind.value} {lap.epoch}"


def _listed(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers)) or "none"
