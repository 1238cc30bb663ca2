"""Stamp a run's events with times as they come."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import Literal

from bench.measure.instruments import Clock, RunLog, SignalGate
from bench.measure.progress import RunProgress
from bench.measure.run_state import RunState
from bench.records.protocol import BenchmarkProtocol
from bench.records.schema import Evaluation, Lap, LapKind, Status, TrainedEpoch
from mnist_cnn.errors import DamagedCheckpointError
from mnist_cnn.events import Checkpointed, EpochTrained, Evaluated, Event, Finished, Started
from mnist_cnn.failure import describe_error
from mnist_cnn.process import ParentDiedError


@dataclass(slots=True)
class Observation:
    """What was observed of one run: raw, in order."""

    status: Status = Status.FAILED
    reason: str | None = None
    error: BaseException | None = None
    laps: list[Lap] = field(default_factory=list)
    epochs: list[TrainedEpoch] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @classmethod
    def at_start(cls, start: RunState | None) -> Observation:
        """What was observed before the run begins: nothing, unless it is resumed."""
        observation = cls()
        if start is not None:
            observation.laps += start.laps
            observation.epochs += start.epochs
            observation.evaluations += start.evaluations
        return observation

    def fail(self, error: BaseException) -> None:
        """Note the error that ended the run."""
        self.status, self.error, self.reason = Status.FAILED, error, describe_error(error)

    @property
    def samples_seen(self) -> int:
        """Training images, over all ranks."""
        return sum(epoch.samples for epoch in self.epochs)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunContext:
    """What following a run needs besides its events."""

    protocol: BenchmarkProtocol
    """Says when the target is reached and whether that ends the run."""
    clock: Clock
    """Waits for the device at every stamp."""
    signals: SignalGate
    """Lets a signal end the work only while the run's next event is awaited."""
    progress: RunProgress
    """Called between laps, never within one."""
    epochs: int
    """Epochs that the run is to have, for the display."""
    checkpoint_sink: Callable[[RunState], None] | None = None
    """Called with the state of the run at every checkpoint; None where there are none."""
    log: RunLog | None = None
    """Told of every lap as it ends; None where nobody would read it."""


def observe(
    events: Generator[Event, None, None], context: RunContext, start: RunState | None = None
) -> Observation:
    """Stamp events as they come. Never raises: how a run failed is a result too.

    The run's clock starts now, when every rank is here.

    Args:
        events: the events of the run; nothing has been taken from it yet.
        context: clock, rules and display.
        start: state from which the run begins or resumes; None where no state is kept.
    """
    observation = Observation.at_start(start)
    try:
        # Within the try: here the ranks wait for each other, and one of them may be gone.
        observer = _Observer(context, start, observation)
        context.signals.allow()
        observation.status, observation.reason = observer.follow(events)
        # Within the try: a signal before this line ends the run, a later one waits.
        context.signals.hold()
    except ParentDiedError as error:
        observation.status, observation.error = Status.FAILED, error
        observation.reason = str(error)
    except KeyboardInterrupt as error:
        observation.status, observation.error = Status.INTERRUPTED, error
        observation.reason = str(error) or "interrupted from the keyboard"
    except DamagedCheckpointError:  # nothing was trained: it is no outcome of the run
        raise
    except BaseException as error:  # SystemExit too: a run that ends by it has not completed
        context.signals.hold()
        observation.fail(error)
    return observation


class _Observer:
    """Follows the events of one run; arguments as those of `observe`."""

    def __init__(
        self, context: RunContext, start: RunState | None, observation: Observation
    ) -> None:
        self.observation = observation
        self._context, self._clock = context, context.clock
        self._begin = self._origin = context.clock.together()
        self._start = start
        if start is not None:
            # As if no time had passed between the interruption and the resumption.
            self._origin -= start.seconds

    def follow(self, events: Generator[Event, None, None]) -> tuple[Status, str | None]:
        """Take the events to their end.

        Returns:
            How the run ended, and the reason where the status does not say it.
        """
        # Closed here, not by the garbage collector: a stopped run must free its memory before the
        # next run is timed.
        with closing(events):
            for event in events:
                self._context.signals.check()
                match event:
                    case Started():
                        self._lap(LapKind.RESUME if self.observation.laps else LapKind.INIT)
                        self._log()
                    case EpochTrained():
                        self._trained(event)
                        if not math.isfinite(event.loss):
                            reason = f"the training loss of epoch {event.epoch} is not finite"
                            return Status.DIVERGED, reason
                    case Evaluated():
                        if self._evaluated(event) and self._context.protocol.stop_at_target:
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
        self.observation.laps.append(
            Lap(kind=kind, epoch=epoch, start_seconds=start, seconds=seconds)
        )
        return seconds

    def _trained(self, event: EpochTrained) -> None:
        seconds = self._lap(LapKind.TRAIN, event.epoch)
        self.observation.epochs.append(
            TrainedEpoch(
                epoch=event.epoch,
                steps=event.steps,
                samples=event.samples,
                loss=event.loss if math.isfinite(event.loss) else None,
            )
        )
        self._log(epoch=self.observation.epochs[-1])
        images_per_second = event.samples / seconds if seconds > 0 else math.inf
        self._context.progress.epoch_trained(
            event.epoch, self._context.epochs, event.loss, images_per_second
        )

    def _evaluated(self, event: Evaluated) -> bool:
        """Return whether the target has been reached by now."""
        self._lap(LapKind.EVAL, event.epoch)
        self.observation.evaluations.append(
            Evaluation(
                epoch=event.epoch,
                samples=event.samples,
                correct=event.correct,
                loss=event.loss if math.isfinite(event.loss) else None,
                samples_seen=self.observation.samples_seen,
            )
        )
        self._log(evaluation=self.observation.evaluations[-1])
        best = max(evaluation.accuracy for evaluation in self.observation.evaluations)
        reached = best >= self._context.protocol.target_accuracy
        self._context.progress.evaluated(event.epoch, event.accuracy, best, reached)
        return reached

    def _checkpointed(self, event: Checkpointed) -> None:
        self._lap(LapKind.CHECKPOINT, event.epoch)
        sink = self._context.checkpoint_sink
        if self._start is not None and sink is not None:
            sink(self._state_at(event, self._start))
            # The lap is measured again: storing the state is part of the checkpoint.
            del self.observation.laps[-1]
            self._lap(LapKind.CHECKPOINT, event.epoch)
        self._log()

    def _log(self, epoch: TrainedEpoch | None = None, evaluation: Evaluation | None = None) -> None:
        """Write the last lap down, and what it led to: this process may die at any moment."""
        if self._context.log is not None:
            self._context.log.lap_over(self.observation.laps[-1], epoch, evaluation)

    def _state_at(self, checkpoint: Checkpointed, start: RunState) -> RunState:
        """The state of the run at a checkpoint, its laps those of the slowest rank."""
        return start.model_copy(
            update={
                "epoch": checkpoint.epoch,
                "digests": checkpoint.digests,
                "laps": tuple(slowest_laps(self._clock, self.observation.laps, healthy=True)),
                "epochs": tuple(self.observation.epochs),
                "evaluations": tuple(self.observation.evaluations),
            }
        )


def slowest_laps(clock: Clock, laps: list[Lap], healthy: bool) -> list[Lap]:
    """Each lap as the slowest rank measured it."""
    seconds = over_ranks(clock, [lap.seconds for lap in laps], "max", healthy)
    starts = over_ranks(clock, [lap.start_seconds for lap in laps], "max", healthy)
    return [
        lap.model_copy(update={"start_seconds": start, "seconds": length})
        for lap, start, length in zip(laps, starts, seconds, strict=True)
    ]


def over_ranks(
    clock: Clock, values: Sequence[float], how: Literal["max", "sum"], healthy: bool
) -> list[float]:
    """Values over all ranks; those of this rank alone where the others may have died."""
    return clock.across_ranks(values, how) if healthy else list(values)
