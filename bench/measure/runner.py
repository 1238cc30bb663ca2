"""Turn the events of a workload into measured runs. Owns no tensor, no device and no printing.

The clock, the meter of load and memory, and the progress display are passed in, so that tests can
pass a fake clock.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import NamedTuple

from bench.measure.instruments import Instruments, Journal, RunLog, Workload
from bench.measure.observer import Observation, RunContext, observe, over_ranks, slowest_laps
from bench.measure.run_state import RunState
from bench.measure.seed_share import SeedShare
from bench.measure.warmup import repeat_warm_up
from bench.records.protocol import PROTOCOL_VERSION, BenchmarkProtocol
from bench.records.schema import (
    Calibration,
    ClockCheck,
    Energy,
    Environment,
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
    WarmUp,
    first_reached,
)
from bench.stats.stopping import precise_enough
from bench.stats.sums import exact_sum
from mnist_cnn.recipe import Recipe, division


@dataclass(frozen=True, slots=True)
class BenchmarkSpec:
    """What the runs of a benchmark have in common."""

    recipe: Recipe
    protocol: BenchmarkProtocol
    setup: Callable[[], Setup]
    """Gives the set-up as it is known when it is called: capture may fail during the first run."""
    environment: Environment
    dataset: Callable[[], dict[str, str]]
    """Gives the SHA-256 of each data file as it was last read."""
    command: list[str]
    """Words of the command line."""
    label: str | None
    startup_seconds: float
    """From the start of the process to the start of the benchmark."""
    clock: ClockCheck | None = None
    """Result of the check of the clock; None in a test."""
    parity: ParityCheck | None = None
    """Difference between the device's gradients and the CPU's; None where device and kernels are
    those of the reference."""
    calibration: Calibration | None = None
    """Speed of the machine itself; None in a test."""
    all_reduce_seconds: float | None = None
    """Seconds of one all-reduce of all gradients by itself; None for one rank."""
    journal: Journal | None = None
    """State that another process can resume from; None where no checkpoints are saved."""
    share: SeedShare | None = None
    """The runs that --parallel-seeds gave to this process; None where it makes all runs."""
    write_plan: Callable[[], None] | None = None
    """Writes the plan of the benchmark; None where records are not saved."""
    link: Callable[[RunRecord], RunRecord] | None = None
    """Gives a record its place after the plan; None where records are not saved."""
    log: RunLog | None = None
    """Told of everything as it happens; None where nobody would read it."""
    restarted: int = 0
    """Number of times that the launcher restarted all ranks."""
    benchmark_id: str = field(default_factory=lambda: uuid.uuid4().hex)


class MeasuredRun(NamedTuple):
    """A run that is over."""

    record: RunRecord
    error: BaseException | None
    """The exception that ended the run; None where none did."""


@dataclass(frozen=True, slots=True)
class _Measurement:
    """What was measured of one run."""

    start: RunState
    started_at: datetime
    run_id: str
    observation: Observation
    load: Load
    memory: PeakMemory
    energy: Energy | None
    monitoring: Monitoring | None

    @property
    def healthy(self) -> bool:
        """Whether no exception ended the run; after one, collective operations could hang."""
        return self.observation.error is None


@dataclass(frozen=True, slots=True)
class _Preparation:
    """What this process did before its first run."""

    laps: list[Lap]
    """Start-up and warm-up."""
    warmup: WarmUp


def run_benchmark(
    spec: BenchmarkSpec, workload: Workload, instruments: Instruments
) -> Iterator[MeasuredRun]:
    """Warm up, then measure every run of the protocol.

    A signal ends the warm-up or a run, never the making and saving of a record.

    Yields:
        Each run as soon as it is over. A run that was interrupted or failed is the last.

    Raises:
        Exception: the warm-up failed; nothing was measured.
    """
    protocol, journal = spec.protocol, spec.journal
    records = list(journal.earlier) if journal else []
    pending = _pending_runs(spec, records)
    already_complete = not pending or _precise_enough(protocol, records)
    if journal and already_complete:
        journal.finish()
        return
    instruments.progress.benchmark_started(spec.recipe.name, protocol.runs, spec.recipe.epochs)
    preparation = _warm_up(spec, workload, instruments)
    if spec.write_plan is not None:
        # After the warm-up: from here on every announced run leaves a record.
        spec.write_plan()
    for index, seed in pending:
        start = journal.begin(index, seed) if journal else RunState(run_index=index, seed=seed)
        measurement = _measure_run(spec, workload, instruments, start, preparation)
        record = _make_record(spec, workload, instruments, measurement, preparation)
        # After it: the ranks meet once more, and one may have gone since.
        error = measurement.observation.error
        record = instruments.explain(record, error)
        yield MeasuredRun(record, error)
        instruments.progress.run_finished(record)
        records.append(record)
        if not measurement.healthy:
            return
        if _precise_enough(protocol, records):
            break
    if journal:
        journal.finish()


def _pending_runs(spec: BenchmarkSpec, records: Sequence[RunRecord]) -> list[tuple[int, int]]:
    """Index, from 1, and seed of each run that this process has still to make."""
    complete = {record.run_index for record in records}
    return [
        (index, seed)
        for index, seed in enumerate(spec.protocol.seeds, start=1)
        if index not in complete and (spec.share is None or spec.share.makes(index))
    ]


def _warm_up(spec: BenchmarkSpec, workload: Workload, instruments: Instruments) -> _Preparation:
    """Warm up: its results are discarded."""
    instruments.progress.warmup_started()
    begin = instruments.clock.together()
    device, images = spec.setup().device, spec.recipe.train_images
    warmup = repeat_warm_up(workload, instruments.clock, device, images)
    seconds = instruments.clock.now() - begin
    # From here on a signal waits, except within a run: every announced run leaves a record.
    instruments.signals.hold()
    instruments.progress.warmup_finished(seconds)
    return _Preparation(_startup_laps(spec.startup_seconds, seconds), warmup)


def _measure_run(
    spec: BenchmarkSpec,
    workload: Workload,
    instruments: Instruments,
    start: RunState,
    preparation: _Preparation,
) -> _Measurement:
    """Train once, with the instruments running."""
    clock, meter = instruments.clock, instruments.meter
    context = RunContext(
        protocol=spec.protocol,
        clock=clock,
        signals=instruments.signals,
        progress=instruments.progress,
        epochs=spec.recipe.epochs,
        checkpoint_sink=spec.journal.keep if spec.journal else None,
        log=spec.log,
    )
    run_id = uuid.uuid4().hex
    if spec.log is not None:
        draft = _unmeasured(start, run_id)
        laps = preparation.laps + draft.observation.laps
        spec.log.run_begun(_compose(spec, draft, preparation, laps, None))
    instruments.progress.run_started(start.run_index, start.seed)
    started_at = datetime.now(UTC)
    meter.start()
    observation = observe(workload.run(start.seed), context, start)
    own_seconds = 0.0
    with _noting_failure(observation):
        own_seconds = over_ranks(
            clock, [meter.own_cpu_seconds()], "sum", observation.error is None
        )[0]
    load, memory, energy, monitoring = meter.stop(own_seconds)
    if spec.share is not None or (observation.error is not None and spec.setup().processes > 1):
        # Our total is not known: parallel runs, or ranks that may have died, used the machine too.
        # With this process's part only, their work would pass for that of other programs.
        load = load.model_copy(update={"own_seconds": None})
    return _Measurement(start, started_at, run_id, observation, load, memory, energy, monitoring)


def _unmeasured(start: RunState, run_id: str) -> _Measurement:
    """What is measured of a run whose process dies at once."""
    unknown = "not known: the process that measured has died"
    return _Measurement(
        start=start,
        started_at=datetime.now(UTC),
        run_id=run_id,
        observation=Observation.at_start(start),
        load=Load(
            load_average_before=None,
            load_average_after=None,
            busy_seconds=None,
            own_seconds=None,
            elapsed_seconds=0.0,
        ),
        memory=PeakMemory(bytes=None, source=unknown),
        energy=None,
        monitoring=None,
    )


@contextmanager
def _noting_failure(observation: Observation) -> Iterator[None]:
    """Where ranks meet after a run, one may be gone: what this rank has measured is kept."""
    try:
        yield
    except BaseException as error:
        observation.fail(error)


def _make_record(
    spec: BenchmarkSpec,
    workload: Workload,
    instruments: Instruments,
    measurement: _Measurement,
    preparation: _Preparation,
) -> RunRecord:
    """The record of a run, with what the other ranks have measured of it."""
    observation = measurement.observation
    laps, mistakes = preparation.laps + observation.laps, None
    with _noting_failure(observation):
        laps = slowest_laps(instruments.clock, laps, measurement.healthy)
        mistakes = _mistakes(observation, workload)
    return _compose(spec, measurement, preparation, laps, mistakes)


def _compose(
    spec: BenchmarkSpec,
    measurement: _Measurement,
    preparation: _Preparation,
    laps: list[Lap],
    mistakes: Mistakes | None,
) -> RunRecord:
    observation, start = measurement.observation, measurement.start
    evaluations = observation.evaluations
    record = RunRecord(
        run_id=measurement.run_id,
        benchmark_id=spec.benchmark_id,
        run_index=start.run_index,
        started_at=measurement.started_at,
        status=observation.status,
        reason=observation.reason,
        resumed=start.resumed,
        restarted=spec.restarted,
        label=spec.label,
        command=spec.command,
        division=division(spec.recipe),
        seed=start.seed,
        protocol=protocol_values(spec.protocol),
        recipe=spec.recipe.values(),
        setup=spec.setup(),
        clock=spec.clock,
        parity=spec.parity,
        warmup=preparation.warmup,
        calibration=spec.calibration,
        all_reduce_seconds=spec.all_reduce_seconds,
        laps=laps,
        epochs=observation.epochs,
        evaluations=evaluations,
        samples_seen=observation.samples_seen,
        target_reached_epoch=first_reached(evaluations, spec.protocol.target_accuracy),
        final_accuracy=evaluations[-1].accuracy if evaluations else None,
        mistakes=mistakes,
        peak_memory=measurement.memory,
        load=measurement.load,
        energy=measurement.energy,
        monitoring=measurement.monitoring,
        dataset=spec.dataset(),
        environment=spec.environment,
    )
    return record if spec.link is None else spec.link(record)


def _precise_enough(protocol: BenchmarkProtocol, records: Sequence[RunRecord]) -> bool:
    """Whether --runs auto may stop; the same on every rank, since all have the same laps."""
    if protocol.half_width is None:
        return False
    train_seconds = [
        exact_sum(lap.seconds for lap in record.laps if lap.kind is LapKind.TRAIN)
        for record in records
        if record.counts
    ]
    run_seconds = [
        max(lap.start_seconds + lap.seconds for lap in record.laps) for record in records
    ]
    return precise_enough(protocol.half_width, protocol.budget_seconds, train_seconds, run_seconds)


def _mistakes(observation: Observation, workload: Workload) -> Mistakes | None:
    """The misclassified images; None if they are not as many as the last evaluation counted."""
    if observation.status is not Status.COMPLETED or not observation.evaluations:
        return None
    last, mistakes = observation.evaluations[-1], workload.mistakes()
    if mistakes is None or len(mistakes.images) != last.samples - last.correct:
        return None
    return Mistakes(images=list(mistakes.images), predicted=list(mistakes.predicted))


def _startup_laps(startup_seconds: float, warmup_seconds: float) -> list[Lap]:
    """Start-up and warm-up as laps that end where the run's clock starts."""
    return [
        Lap(
            kind=LapKind.STARTUP,
            start_seconds=-startup_seconds - warmup_seconds,
            seconds=startup_seconds,
        ),
        Lap(kind=LapKind.WARMUP, start_seconds=-warmup_seconds, seconds=warmup_seconds),
    ]


def protocol_values(protocol: BenchmarkProtocol) -> ProtocolValues:
    """The protocol as records hold it."""
    return ProtocolValues(
        version=PROTOCOL_VERSION,
        target_accuracy=protocol.target_accuracy,
        runs=protocol.runs,
        warmup_images=protocol.warmup_images,
        stop_at_target=protocol.stop_at_target,
        half_width=protocol.half_width,
        budget_seconds=protocol.budget_seconds,
    )
