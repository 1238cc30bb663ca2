"""Stamp a run's events with times as they come."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from bench.measure.instruments import Clock, Gate
from bench.measure.progress import RunProgress
from bench.measure.run_state import RunState
from bench.records.protocol import BenchmarkProtocol as Rules
from bench.records.schema import Evaluation, Lap, LapKind, Status, TrainedEpoch
from mnist_cnn.events import Checkpointed, EpochTrained, Evaluated, Event, Finished, Started


@dataclass(slots=True)
class Observation:
    """What was seen of one run: raw, in order."""

    status: Status = Status.FAILED
    reason: str | None = None
    error: BaseException | None = None
    laps: list[Lap] = field(default_factory=list)
    epochs: list[TrainedEpoch] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def samples_seen(self) -> int:
        """Training images, over all ranks."""
        return sum(epoch.samples for epoch in self.epochs)


def observe(
    events: Generator[Event, None, None],
    clock: Clock,
    gate: Gate,
    rules: Rules,
    progress: RunProgress,
    epochs: int,
    origin: float,
    before: RunState | None = None,
    keep: Callable[[RunState], None] | None = None,
) -> Observation:
    """Stamp events as they come; never raises, for how a run failed is a result too.

    Args:
        events: the run's; nothing has been taken from it yet.
        clock: waits for the device at every stamp.
        gate: open while events are waited for, and no longer.
        rules: say when the target is reached and whether that ends the run.
        progress: told between laps, never within one.
        epochs: how many the run is to have, for the display.
        origin: the clock's reading at which the run began, or goes on; laps count from there.
        before: the run as it stood when it was lost, if it was.
        keep: told how the run stands at every checkpoint.
    """
    observer = _Observer(clock, rules, progress, epochs, origin, before, keep)
    seen = observer.seen
    try:
        gate.allow()
        seen.status, seen.reason = observer.follow(events)
        gate.hold()  # within the try: what comes before it ends the run, what comes after waits
    except KeyboardInterrupt as error:
        seen.status, seen.error = Status.INTERRUPTED, error
        seen.reason = str(error) or "interrupted from the keyboard"
    except Exception as error:
        gate.hold()
        first_line = (str(error).splitlines() or [""])[0]
        seen.status, seen.error = Status.FAILED, error
        seen.reason = f"{type(error).__name__}: {first_line}"
    return seen


class _Observer:
    """Follows one run's events; arguments as those of `observe`."""

    def __init__(
        self,
        clock: Clock,
        rules: Rules,
        progress: RunProgress,
        epochs: int,
        origin: float,
        before: RunState | None,
        keep: Callable[[RunState], None] | None,
    ) -> None:
        self.seen = Observation()
        self._clock, self._rules, self._progress, self._epochs = clock, rules, progress, epochs
        self._begin = self._origin = origin
        self._before, self._keep = before, keep
        if before is not None:
            self.seen.laps += before.laps
            self.seen.epochs += before.epochs
            self.seen.evaluations += before.evaluations
            self._origin -= before.seconds  # as if nothing had been lost in between

    def follow(self, events: Generator[Event, None, None]) -> tuple[Status, str | None]:
        """How the run ended, and why, where that needs a word."""
        # Closed here, not when the garbage collector comes by: a stopped run must let go of its
        # memory before the next is timed.
        with closing(events):
            for event in events:
                match event:
                    case Started():
                        self._lap(LapKind.RESUME if self.seen.laps else LapKind.INIT)
                    case EpochTrained():
                        self._trained(event)
                        if not math.isfinite(event.loss):
                            reason = f"the training loss of epoch {event.epoch} is not finite"
                            return Status.DIVERGED, reason
                    case Evaluated():
                        if self._evaluated(event) and self._rules.stop_at_target:
                            return Status.COMPLETED, None
                    case Checkpointed():
                        self._checkpointed(event)
                    case Finished():
                        return Status.COMPLETED, None
                self._begin = self._clock.now()
        return Status.FAILED, "the run ended without saying that it had finished"

    def _lap(self, kind: LapKind, epoch: int | None = None) -> float:
        seconds = self._clock.now() - self._begin
        start = self._begin - self._origin
        self.seen.laps.append(Lap(kind=kind, epoch=epoch, start_seconds=start, seconds=seconds))
        return seconds

    def _trained(self, event: EpochTrained) -> None:
        seconds = self._lap(LapKind.TRAIN, event.epoch)
        self.seen.epochs.append(
            TrainedEpoch(
                epoch=event.epoch,
                steps=event.steps,
                samples=event.samples,
                loss=event.loss if math.isfinite(event.loss) else None,
            )
        )
        images_per_second = event.samples / seconds if seconds > 0 else math.inf
        self._progress.epoch_trained(event.epoch, self._epochs, event.loss, images_per_second)

    def _evaluated(self, event: Evaluated) -> bool:
        """Whether the target has been reached by now."""
        self._lap(LapKind.EVAL, event.epoch)
        self.seen.evaluations.append(
            Evaluation(
                epoch=event.epoch,
                samples=event.samples,
                correct=event.correct,
                loss=event.loss if math.isfinite(event.loss) else None,
                samples_seen=self.seen.samples_seen,
            )
        )
        best = max(evaluation.accuracy for evaluation in self.seen.evaluations)
        reached = best >= self._rules.target_accuracy
        self._progress.evaluated(event.epoch, event.accuracy, best, reached)
        return reached

    def _checkpointed(self, event: Checkpointed) -> None:
        self._lap(LapKind.CHECKPOINT, event.epoch)
        if self._before is not None and self._keep is not None:
            self._keep(_run_state_so_far(self._before, event, self.seen, self._clock))
            # Once more, for the keeping belongs to it.
            del self.seen.laps[-1]
            self._lap(LapKind.CHECKPOINT, event.epoch)


def _run_state_so_far(
    before: RunState, event: Checkpointed, seen: Observation, clock: Clock
) -> RunState:
    return before.model_copy(
        update={
            "epoch": event.epoch,
            "digests": event.digests,
            "laps": tuple(slowest_laps(clock, seen.laps, healthy=True)),
            "epochs": tuple(seen.epochs),
            "evaluations": tuple(seen.evaluations),
        }
    )


def slowest_laps(clock: Clock, laps: list[Lap], healthy: bool) -> list[Lap]:
    """Each lap as the slowest rank saw it."""
    seconds = over_ranks(clock, [lap.seconds for lap in laps], "max", healthy)
    starts = over_ranks(clock, [lap.start_seconds for lap in laps], "max", healthy)
    return [
        lap.model_copy(update={"start_seconds": start, "seconds": length})
        for lap, start, length in zip(laps, starts, seconds, strict=True)
    ]


def over_ranks(
    clock: Clock, values: Sequence[float], how: Literal["max", "sum"], healthy: bool
) -> list[float]:
    """Over all ranks, or this rank's own where the others may be gone and would be waited for."""
    return clock.across_ranks(values, how) if healthy else list(values)
