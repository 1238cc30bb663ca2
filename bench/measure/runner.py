"""Turn a workload's events into measured runs. Owns no tensor, no device and no printing.

The clock, the meter of load and memory, and the progress display are handed in, so that all of
this is tested with a clock that tells the time it is told to.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from bench.measure.instruments import Clock, Gate, Journal, Meter, Workload
from bench.measure.observer import Observation, observe, over_ranks, slowest_laps
from bench.measure.progress import RunProgress
from bench.measure.run_state import RunState
from bench.measure.seed_share import SeedShare
from bench.records.protocol import PROTOCOL_VERSION, BenchmarkProtocol as Rules
from bench.records.schema import (
    ClockCheck,
    Environment,
    Lap,
    LapKind,
    Mistakes,
    ParityCheck,
    ProtocolValues,
    RunRecord,
    Setup,
    Status,
    first_reached,
)
from bench.stats.stopping import precise_enough
from mnist_cnn.recipe import Recipe, division


@dataclass(frozen=True, slots=True)
class BenchmarkSpec:
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
    share: SeedShare | None = None
    """Where other processes make some of the runs: which are made here."""
    restarted: int = 0
    """How often the launcher has started all ranks anew."""
    benchmark_id: str = field(default_factory=lambda: uuid.uuid4().hex)


def run_benchmark(
    benchmark: BenchmarkSpec,
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
        before = journal.begin(index, seed) if journal else RunState(run_index=index, seed=seed)
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
        own_seconds = over_ranks(clock, [meter.own_cpu_seconds()], "sum", healthy)[0]
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
            laps=slowest_laps(clock, first + seen.laps, healthy),
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
    return precise_enough(rules.half_width, rules.budget_seconds, seconds, spent)


def _mistakes(seen: Observation, workload: Workload) -> Mistakes | None:
    """What the last evaluation got wrong, if a second look finds as many; see `RunRecord`."""
    if seen.status is not Status.COMPLETED or not seen.evaluations:
        return None
    last, found = seen.evaluations[-1], workload.mistakes()
    if found is None or len(found.images) != last.samples - last.correct:
        return None
    return Mistakes(images=list(found.images), predicted=list(found.predicted))


def _laps_before(seconds: Sequence[float]) -> list[Lap]:
    """Start-up and warm-up, laid before the run's clock, the last ending where it starts."""
    startup, warmup = seconds
    return [
        Lap(kind=LapKind.STARTUP, start_seconds=-startup - warmup, seconds=startup),
        Lap(kind=LapKind.WARMUP, start_seconds=-warmup, seconds=warmup),
    ]


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
