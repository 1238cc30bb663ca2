"""Turn a workload's events into measured runs. Owns no tensor, no device and no printing.

The clock, the meter of load and memory, and the progress display are handed in, so that all of
this is tested with a clock that tells the time it is told to.
"""

from __future__ import annotations

import math
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Protocol

from bench.progress import RunProgress
from bench.protocol import PROTOCOL_VERSION, Protocol as Rules
from bench.records import (
    ClockCheck,
    Energy,
    Environment,
    Evaluation,
    Lap,
    LapKind,
    Load,
    Mistakes,
    Monitoring,
    ParityCheck,
    PeakMemory,
    ProtocolValues,
    RunRecord,
    Setup,
    Status,
    TrainedEpoch,
    first_reached,
)
from bench.sequential import enough
from bench.share import Share
from bench.unfinished import Unfinished
from mnist_cnn import events as told
from mnist_cnn.events import Checkpointed, EpochTrained, Evaluated, Event, Finished, Started
from mnist_cnn.recipe import Recipe, division


class Clock(Protocol):
    """What the runner needs of a clock; `bench.clock.DeviceClock` is the real one."""

    def now(self) -> float:
        """Seconds since an arbitrary start, once the device's queue is empty."""

    def together(self) -> float:
        """`now` at a moment when every rank is here."""

    def across_ranks(self, values: Sequence[float], how: Literal["max", "sum"]) -> list[float]:
        """Each value's maximum or sum over the ranks."""


class Meter(Protocol):
    """What the runner needs to know of the machine around a run."""

    def start(self) -> None:
        """The run begins."""

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this rank and its children have used since `start`."""

    def stop(self, own_seconds: float) -> tuple[Load, PeakMemory, Energy, Monitoring]:
        """The run is over; `own_seconds` is what all ranks together used."""


class Gate(Protocol):
    """Says when a signal may end what is going on; `bench.interruption` is the real one."""

    def allow(self) -> None:
        """From now on it may."""

    def hold(self) -> None:
        """From now on it waits."""


class Workload(Protocol):
    """What is measured."""

    def warm_up(self) -> Generator[Event, None, None]:
        """A short run, to be discarded, that touches everything the real one does."""

    def run(self, seed: int) -> Generator[Event, None, None]:
        """One training from random weights, from the first touch of the data on."""

    def mistakes(self) -> told.Mistakes | None:
        """What the network of the completed run that was last gets wrong; every rank asks."""


class Journal(Protocol):
    """Remembers a benchmark so that another process can go on with it; see `bench.journal`."""

    @property
    def earlier(self) -> Sequence[RunRecord]:
        """The runs that are over already, in order."""

    def begin(self, index: int, seed: int) -> Unfinished:
        """A run begins, or goes on from what is returned."""

    def keep(self, unfinished: Unfinished) -> None:
        """A run has come so far."""

    def finish(self) -> None:
        """All runs are over, and their records kept."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What the runs of a benchmark have in common."""

    recipe: Recipe
    protocol: Rules
    setup: Callable[[], Setup]
    """What they run on, as it is known by then."""
    environment: Environment
    dataset: Callable[[], dict[str, str]]
    """Checksums of the data as last read."""
    command: list[str]
    label: str | None
    startup_seconds: float
    """From the start of the process to here."""
    clock: ClockCheck | None = None
    """What the clock showed before."""
    parity: ParityCheck | None = None
    """How near the device's gradients were to the CPU's."""
    all_reduce_seconds: float | None = None
    """To sum all gradients over the ranks, by itself; None for one rank."""
    journal: Journal | None = None
    """None where nothing is remembered."""
    share: Share | None = None
    """Where other processes make some of the runs: which are made here."""
    restarted: int = 0
    """How often the launcher has started all ranks anew."""
    benchmark_id: str = field(default_factory=lambda: uuid.uuid4().hex)


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


def run_benchmark(
    benchmark: Benchmark,
    workload: Workload,
    clock: Clock,
    meter: Meter,
    progress: RunProgress,
    gate: Gate,
) -> Iterator[tuple[RunRecord, BaseException | None]]:
    """Warm up, then measure every run of the protocol.

    A signal ends the warm-up or a run, never the making and keeping of a record.

    Yields:
        Each run's record as soon as the run is over, with the exception that ended it, if one
        did. A run that was interrupted or failed is the last.

    Raises:
        Exception: the warm-up failed: nothing has been measured, and nothing can be.
    """
    rules, journal = benchmark.protocol, benchmark.journal
    done = list(journal.earlier) if journal else []
    over = {record.run_index for record in done}
    share = benchmark.share
    left = [
        (i, seed)
        for i, seed in enumerate(rules.seeds, start=1)
        if i not in over and (share is None or share.makes(i))
    ]
    if journal and (not left or (done and _enough(rules, done))):
        journal.finish()
        return
    progress.benchmark_started(benchmark.recipe.name, rules.runs, benchmark.recipe.epochs)
    progress.warmup_started()
    begin = clock.together()
    for _ in workload.warm_up():
        pass
    warmup_seconds = clock.now() - begin
    gate.hold()  # who is told of a run finds its record
    progress.warmup_finished(warmup_seconds)
    for index, seed in left:
        before = journal.begin(index, seed) if journal else Unfinished(run_index=index, seed=seed)
        progress.run_started(index, seed)
        started_at = datetime.now(UTC)
        meter.start()
        origin = clock.together()
        seen = observe(
            workload.run(seed),
            clock,
            gate,
            rules,
            progress,
            benchmark.recipe.epochs,
            origin,
            before,
            journal.keep if journal else None,
        )
        healthy = seen.error is None
        own_seconds = _over_ranks(clock, [meter.own_cpu_seconds()], "sum", healthy)[0]
        load, memory, energy, monitoring = meter.stop(own_seconds)
        if share is not None or (not healthy and benchmark.setup().processes > 1):
            # Nobody asks the other runs, or could ask the other ranks: what they used must not pass
            # for somebody else's work.
            load = load.model_copy(update={"own_seconds": None})
        first = _laps_before([benchmark.startup_seconds, warmup_seconds])
        record = RunRecord(
            run_id=uuid.uuid4().hex,
            benchmark_id=benchmark.benchmark_id,
            run_index=index,
            started_at=started_at,
            status=seen.status,
            reason=seen.reason,
            resumed=before.resumed,
            restarted=benchmark.restarted,
            label=benchmark.label,
            command=benchmark.command,
            division=division(benchmark.recipe),
            seed=seed,
            protocol=protocol_values(rules),
            recipe=benchmark.recipe.values(),
            setup=benchmark.setup(),
            clock=benchmark.clock,
            parity=benchmark.parity,
            all_reduce_seconds=benchmark.all_reduce_seconds,
            laps=_slowest(clock, first + seen.laps, healthy),
            epochs=seen.epochs,
            evaluations=seen.evaluations,
            samples_seen=seen.samples_seen,
            target_reached_epoch=first_reached(seen.evaluations, rules.target_accuracy),
            final_accuracy=seen.evaluations[-1].accuracy if seen.evaluations else None,
            mistakes=_mistakes(seen, workload),
            peak_memory=memory,
            load=load,
            energy=energy,
            monitoring=monitoring,
            dataset=benchmark.dataset(),
            environment=benchmark.environment,
        )
        yield record, seen.error
        progress.run_finished(record)
        done.append(record)
        if not healthy:
            return
        if _enough(rules, done):
            break
    if journal:
        journal.finish()


def _enough(rules: Rules, done: Sequence[RunRecord]) -> bool:
    """Whether --runs auto has what it was to find out; the same on every rank, by the same laps."""
    if rules.half_width is None:
        return False
    seconds = [
        sum(lap.seconds for lap in record.laps if lap.kind is LapKind.TRAIN)
        for record in done
        if record.counts
    ]
    spent = [max(lap.start_seconds + lap.seconds for lap in record.laps) for record in done]
    return enough(rules.half_width, rules.budget_seconds, seconds, spent)


def _mistakes(seen: Observation, workload: Workload) -> Mistakes | None:
    """What the last evaluation got wrong, if a second look finds as many; see `RunRecord`."""
    if seen.status is not Status.COMPLETED or not seen.evaluations:
        return None
    last, found = seen.evaluations[-1], workload.mistakes()
    if found is None or len(found.images) != last.samples - last.correct:
        return None
    return Mistakes(images=list(found.images), predicted=list(found.predicted))


def observe(
    events: Generator[Event, None, None],
    clock: Clock,
    gate: Gate,
    rules: Rules,
    progress: RunProgress,
    epochs: int,
    origin: float,
    before: Unfinished | None = None,
    keep: Callable[[Unfinished], None] | None = None,
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
        before: Unfinished | None,
        keep: Callable[[Unfinished], None] | None,
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
            self._keep(_so_far(self._before, event, self.seen, self._clock))
            # Once more, for the keeping belongs to it.
            del self.seen.laps[-1]
            self._lap(LapKind.CHECKPOINT, event.epoch)


def _so_far(before: Unfinished, event: Checkpointed, seen: Observation, clock: Clock) -> Unfinished:
    return before.model_copy(
        update={
            "epoch": event.epoch,
            "digests": event.digests,
            "laps": tuple(_slowest(clock, seen.laps, healthy=True)),
            "epochs": tuple(seen.epochs),
            "evaluations": tuple(seen.evaluations),
        }
    )


def _laps_before(seconds: Sequence[float]) -> list[Lap]:
    """Start-up and warm-up, laid before the run's clock, the last ending where it starts."""
    startup, warmup = seconds
    return [
        Lap(kind=LapKind.STARTUP, start_seconds=-startup - warmup, seconds=startup),
        Lap(kind=LapKind.WARMUP, start_seconds=-warmup, seconds=warmup),
    ]


def _slowest(clock: Clock, laps: list[Lap], healthy: bool) -> list[Lap]:
    """Each lap as the slowest rank saw it."""
    seconds = _over_ranks(clock, [lap.seconds for lap in laps], "max", healthy)
    starts = _over_ranks(clock, [lap.start_seconds for lap in laps], "max", healthy)
    return [
        lap.model_copy(update={"start_seconds": start, "seconds": length})
        for lap, start, length in zip(laps, starts, seconds, strict=True)
    ]


def _over_ranks(
    clock: Clock, values: Sequence[float], how: Literal["max", "sum"], healthy: bool
) -> list[float]:
    """Over all ranks, or this rank's own where the others may be gone and would be waited for."""
    return clock.across_ranks(values, how) if healthy else list(values)


def protocol_values(rules: Rules) -> ProtocolValues:
    """The rules as records hold them."""
    return ProtocolValues(
        version=PROTOCOL_VERSION,
        target_accuracy=rules.target_accuracy,
        runs=rules.runs,
        warmup_images=rules.warmup_images,
        stop_at_target=rules.stop_at_target,
        half_width=rules.half_width,
        budget_seconds=rules.budget_seconds,
    )
