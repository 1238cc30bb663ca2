"""From events to records, with a clock that tells the time it is told to."""

from __future__ import annotations

import math
import os
import signal
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest

from bench.analysis import metrics, result_warnings
from bench.measure.instruments import Instruments, RunLog, SignalGate
from bench.measure.interruption import Interruption
from bench.measure.progress import RunProgress
from bench.measure.run_state import RunState
from bench.measure.runner import BenchmarkSpec, run_benchmark
from bench.measure.seed_share import SeedShare
from bench.records.protocol import BenchmarkProtocol
from bench.records.schema import (
    Energy,
    Evaluation,
    Joules,
    Lap,
    LapKind,
    Load,
    Monitoring,
    PeakMemory,
    RunRecord,
    Status,
    TrainedEpoch,
)
from bench.stats.stopping import PILOT
from mnist_cnn.events import EpochTrained, Evaluated, Event, Finished, Mistakes, Started
from mnist_cnn.recipe import REFERENCE
from tests.factories import make_record

STARTED = Started(
    parameters=17_506, processes=1, train_samples=100, evaluation_samples=1000, steps=6
)


QUIET = Monitoring(
    gpus=[],
    gpus_source="a test",
    cpu_mhz_before=2600.0,
    cpu_mhz_after=2500.0,
    cpu_throttle_events=0,
    cpu_throttle_source="a test",
)


class HandClock:
    """A clock that stands still but for what the workload and the display say they took."""

    def __init__(self, slower_rank_by: float = 0.0) -> None:
        self.time = 100.0
        self._slower_rank_by = slower_rank_by
        self.reductions: list[str] = []

    def now(self) -> float:
        return self.time

    def together(self) -> float:
        return self.time

    def across_ranks(self, values: Sequence[float], how: Literal["max", "sum"]) -> list[float]:
        self.reductions.append(how)
        if how == "sum":
            return [2 * value for value in values]
        return [value + self._slower_rank_by for value in values]


@dataclass
class TimedEvents:
    """A workload of events, each after so many seconds; an exception in their place is raised."""

    clock: HandClock
    script: Iterable[tuple[float, Event | BaseException]]
    seeds: list[int] = field(default_factory=list)
    closed: int = 0
    wrong: Mistakes | None = None

    def warm_up(self, *, whole_epoch: bool = False) -> Generator[Event, None, None]:
        self.clock.time += 7.0
        yield STARTED

    def run(self, seed: int) -> Generator[Event, None, None]:
        self.seeds.append(seed)
        try:
            for seconds, event in self.script:
                self.clock.time += seconds
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.closed += 1

    def mistakes(self) -> Mistakes | None:
        self.clock.time += 50.0
        return self.wrong


class HandMeter:
    """Measures what was started, and that once."""

    is_measuring = False

    def start(self) -> None:
        assert not self.is_measuring
        self.is_measuring = True

    def own_cpu_seconds(self) -> float:
        assert self.is_measuring
        return 3.0

    def stop(self, own_seconds: float) -> tuple[Load, PeakMemory, Energy, Monitoring]:
        assert self.is_measuring
        self.is_measuring = False
        load = Load(
            load_average_before=0.5,
            load_average_after=1.5,
            busy_seconds=own_seconds + 1,
            own_seconds=own_seconds,
            elapsed_seconds=10.0,
        )
        energy = Energy(device=Joules(joules=500.0, source="a test"), host=None)
        return load, PeakMemory(bytes=1000, source="a test"), energy, QUIET


class OpenGate:
    """Lets everything through, and remembers what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def allow(self) -> None:
        self.asked.append("allow")

    def hold(self) -> None:
        self.asked.append("hold")

    def check(self) -> None:
        """No signal is lost here."""


class SlowDisplay(RunProgress):
    """Takes a second to show an evaluation."""

    def __init__(self, clock: HandClock) -> None:
        self._clock = clock

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        self._clock.time += 1.0


def evaluated(epoch: int, correct: int) -> Evaluated:
    return Evaluated(epoch, samples=1000, correct=correct, loss=0.1)


def trained(epoch: int, loss: float = 0.5) -> EpochTrained:
    return EpochTrained(epoch, steps=2, samples=100, loss=loss)


TWO_EPOCHS: list[tuple[float, Event | BaseException]] = [
    (2.0, STARTED),
    (10.0, trained(1)),
    (0.5, evaluated(1, 990)),
    (11.0, trained(2)),
    (0.25, evaluated(2, 995)),
    (0.0, Finished(2, 200)),
]


def measured(
    script: Iterable[tuple[float, Event | BaseException]],
    clock: HandClock | None = None,
    processes: int = 1,
    wrong: Mistakes | None = None,
    display: RunProgress | None = None,
    signals: SignalGate | None = None,
    also: Mapping[str, object] | None = None,
    **protocol: object,
) -> tuple[list[RunRecord], list[BaseException | None], TimedEvents]:
    clock = clock or HandClock()
    workload = TimedEvents(clock, list(script), wrong=wrong)
    sample = make_record()
    benchmark = BenchmarkSpec(
        recipe=REFERENCE.with_epochs(2),
        protocol=replace(BenchmarkProtocol(runs=1), **protocol),  # type: ignore[arg-type]
        setup=lambda: sample.setup.model_copy(update={"processes": processes}),
        environment=sample.environment,
        dataset=lambda: {"train-images-idx3-ubyte": "ba89"},
        command=["mnist-bench", "run"],
        label="a label",
        startup_seconds=4.0,
    )
    seen = list(
        run_benchmark(
            replace(benchmark, **(also or {})),  # type: ignore[arg-type]
            workload,
            Instruments(
                clock=clock,
                meter=HandMeter(),
                progress=display or SlowDisplay(clock),
                signals=signals or OpenGate(),
            ),
        )
    )
    return [record for record, _ in seen], [error for _, error in seen], workload


def laps(record: RunRecord) -> list[tuple[str, int | None, float, float]]:
    return [(lap.kind.value, lap.epoch, lap.start_seconds, lap.seconds) for lap in record.laps]


def test_laps_are_what_passed_between_events_and_the_display_is_in_none() -> None:
    (record,), errors, _ = measured(TWO_EPOCHS)
    assert laps(record) == [
        ("startup", None, -11.0, 4.0),
        ("warmup", None, -7.0, 7.0),
        ("init", None, 0.0, 2.0),
        ("train", 1, 2.0, 10.0),
        ("eval", 1, 12.0, 0.5),
        ("train", 2, 13.5, 11.0),  # a second of display lies before it
        ("eval", 2, 24.5, 0.25),
    ]
    assert (record.status, record.reason, errors) == (Status.COMPLETED, None, [None])
    assert record.target_reached_epoch == 2
    assert record.final_accuracy == 0.995
    assert record.samples_seen == 200
    assert [e.samples_seen for e in record.evaluations] == [100, 200]


def test_what_the_last_evaluation_got_wrong_is_found_out_off_the_clock() -> None:
    five = Mistakes(images=(3, 18, 247, 600, 999), predicted=(5, 0, 9, 9, 1))
    (record,), _, _ = measured(TWO_EPOCHS, wrong=five)
    assert record.mistakes is not None
    assert (*record.mistakes.images,) == five.images
    assert (*record.mistakes.predicted,) == five.predicted
    assert metrics.time_to_target_seconds(record) == 24.75


def test_mistakes_that_are_not_the_last_evaluations_are_not_recorded() -> None:
    one = Mistakes(images=(3,), predicted=(5,))
    (record,), _, _ = measured(TWO_EPOCHS, wrong=one)
    assert record.mistakes is None
    diverged = [*TWO_EPOCHS[:3], (1.0, trained(2, math.nan))]
    ten = Mistakes(images=tuple(range(10)), predicted=(0,) * 10)
    (record,), _, _ = measured(diverged, wrong=ten)
    assert (record.status, record.mistakes) == (Status.DIVERGED, None)


def test_the_three_clocks_of_one_record() -> None:
    (record,), _, _ = measured(TWO_EPOCHS)
    assert metrics.time_to_target_seconds(record) == 24.75  # never paused, not even for the display
    assert metrics.train_time_to_target_seconds(record) == 21.0
    assert metrics.cold_time_to_target_seconds(record) == 24.75 + 4.0 + 7.0


def test_runs_auto_stops_when_enough_is_known_and_says_what_was_asked() -> None:
    """All runs take the same time here: the pilot's five are enough."""
    records, _, _ = measured(TWO_EPOCHS, runs=20, half_width=0.05)
    assert len(records) == PILOT
    assert {record.protocol.half_width for record in records} == {0.05}
    assert result_warnings.ResultWarning.RUNS_MISSING not in result_warnings.benchmark_warnings(
        records
    )
    assert result_warnings.ResultWarning.RUNS_MISSING in result_warnings.benchmark_warnings(
        records[1:]
    )
    few, _, _ = measured(TWO_EPOCHS, runs=3, half_width=0.05)
    assert len(few) == 3
    for budget_seconds, runs in ((60.0, 2), (74.0, 2), (74.5, 3)):  # each takes 24.75 s
        brief, _, _ = measured(TWO_EPOCHS, runs=20, half_width=0.05, budget_seconds=budget_seconds)
        assert len(brief) == runs


def test_runs_have_their_own_seeds_and_share_a_benchmark() -> None:
    records, _, workload = measured(TWO_EPOCHS, runs=3, first_seed=7)
    assert workload.seeds == [7, 8, 9] == [record.seed for record in records]
    assert [record.run_index for record in records] == [1, 2, 3]
    assert len({record.benchmark_id for record in records}) == 1
    assert len({record.run_id for record in records}) == 3
    assert workload.closed == 3


def test_a_record_holds_what_the_benchmark_was() -> None:
    (record,), _, _ = measured(TWO_EPOCHS)
    assert record.label == "a label"
    assert record.recipe == REFERENCE.with_epochs(2).values()
    assert record.division == "open"  # the reference has 20 epochs
    assert record.dataset == {"train-images-idx3-ubyte": "ba89"}
    assert record.peak_memory.bytes == 1000
    assert metrics.energy_joules(record) == 500.0
    assert record.monitoring == QUIET
    assert record.warmup is not None
    assert record.warmup.lap_seconds == [7.0]
    assert RunRecord.model_validate_json(record.model_dump_json()) == record


def test_a_missed_target_is_a_completed_run_without_a_time() -> None:
    (record,), _, _ = measured(TWO_EPOCHS, target_accuracy=0.9951)
    assert record.status == Status.COMPLETED
    assert record.target_reached_epoch is None
    assert metrics.time_to_target_seconds(record) is None


def test_stop_at_target_ends_the_run_there() -> None:
    script = [
        *TWO_EPOCHS[:-1],
        (5.0, trained(3)),
        (5.0, evaluated(3, 999)),
        (0.0, Finished(3, 300)),
    ]
    (record,), _, workload = measured(script, stop_at_target=True)
    assert record.status == Status.COMPLETED
    assert [e.epoch for e in record.evaluations] == [1, 2]
    assert workload.closed == 1
    (whole,), _, _ = measured(script)
    assert [e.epoch for e in whole.evaluations] == [1, 2, 3]
    assert whole.target_reached_epoch == 2


class KeptState:
    """A journal in memory."""

    def __init__(self, earlier: Sequence[RunRecord]) -> None:
        self.earlier = earlier
        self.is_forgotten = False

    def begin(self, index: int, seed: int) -> RunState:
        return RunState(run_index=index, seed=seed)

    def keep(self, state: RunState) -> None:
        """Nothing: no checkpoint is written."""

    def finish(self) -> None:
        self.is_forgotten = True


@pytest.mark.parametrize("earlier", [0, 1])
def test_the_state_of_a_benchmark_is_forgotten_once_all_runs_are_over(earlier: int) -> None:
    """Also where they all were before it was resumed."""
    (record,), _, _ = measured(TWO_EPOCHS)
    journal = KeptState([record][:earlier])
    clock = HandClock()
    records, _, _ = measured(TWO_EPOCHS, clock, also={"journal": journal})
    assert len(records) == 1 - earlier
    assert journal.is_forgotten
    assert (clock.time > 100) == bool(records), "nothing is warmed up without a run"


def test_the_state_of_a_run_that_was_lost_is_kept() -> None:
    journal = KeptState([])
    measured([*TWO_EPOCHS[:3], (3.0, KeyboardInterrupt())], also={"journal": journal})
    assert not journal.is_forgotten


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_a_loss_that_is_no_number_is_diverged(loss: float) -> None:
    script = [*TWO_EPOCHS[:3], (1.0, trained(2, loss)), (1.0, evaluated(2, 98))]
    records, errors, _ = measured(script, runs=2)
    assert [r.status for r in records] == [Status.DIVERGED, Status.DIVERGED]  # the next still runs
    assert records[0].reason == "the training loss of epoch 2 is not finite"
    assert records[0].epochs[-1].loss is None
    assert errors == [None, None]


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (KeyboardInterrupt(), Status.INTERRUPTED, "interrupted from the keyboard"),
        (KeyboardInterrupt("ended by SIGTERM"), Status.INTERRUPTED, "ended by SIGTERM"),
        (RuntimeError("out of memory\nmore"), Status.FAILED, "RuntimeError: out of memory"),
        (MemoryError(), Status.FAILED, "out of memory (MemoryError)"),
    ],
)
def test_an_error_ends_the_benchmark_with_a_record_of_what_was(
    error: BaseException, status: Status, reason: str
) -> None:
    clock = HandClock()
    records, errors, workload = measured([*TWO_EPOCHS[:3], (3.0, error)], clock, runs=3)
    assert errors == [error]
    (record,) = records
    assert (record.status, record.reason) == (status, reason)
    assert laps(record)[2:] == [
        ("init", None, 0.0, 2.0),
        ("train", 1, 2.0, 10.0),
        ("eval", 1, 12.0, 0.5),
    ]
    # The other ranks may be gone: nobody waits for them after the warm-up.
    assert clock.reductions == ["max"]
    assert workload.closed == 1


def test_a_run_that_ends_early_without_an_error_failed() -> None:
    (record,), _, _ = measured(TWO_EPOCHS[:3])
    assert record.status == Status.FAILED
    assert record.reason == "the run ended without saying that it had finished"


def test_laps_are_the_slowest_ranks() -> None:
    clock = HandClock(slower_rank_by=0.125)
    (record,), _, _ = measured(TWO_EPOCHS, clock)
    assert record.laps[3] == Lap(kind=LapKind.TRAIN, epoch=1, start_seconds=2.125, seconds=10.125)
    assert record.load.own_seconds == 6.0  # both ranks'


def test_what_the_other_ranks_used_is_unknown_when_they_cannot_be_asked() -> None:
    script = [*TWO_EPOCHS[:2], (1.0, RuntimeError("rank 1 is gone"))]
    (alone,), _, _ = measured(script)
    assert alone.load.own_seconds == 3.0
    (joined,), _, _ = measured(script, processes=2)
    assert joined.load.own_seconds is None
    assert metrics.busy_share(joined) is None


class TextDisplay(RunProgress):
    """Remembers what it was told, with what else happens."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def benchmark_started(self, recipe: str, runs: int, epochs: int) -> None:
        self.told.append(f"{runs} runs of {epochs} epochs of {recipe}")

    def warmup_started(self) -> None:
        self.told.append("warm-up")

    def warmup_finished(self, seconds: float) -> None:
        self.told.append("warm")

    def run_started(self, index: int, seed: int) -> None:
        self.told.append(f"run {index}")

    def run_finished(self, record: RunRecord) -> None:
        self.told.append(f"{record.status} {record.run_index}")


def test_the_plan_is_written_before_the_first_run_and_after_the_warm_up() -> None:
    display = TextDisplay()
    plan = {"write_plan": lambda: display.told.append("plan")}
    measured(TWO_EPOCHS, display=display, also=plan, runs=2)
    assert display.told == [
        f"2 runs of 2 epochs of {REFERENCE.name}",
        "warm-up",
        "warm",
        "plan",
        "run 1",
        "completed 1",
        "run 2",
        "completed 2",
    ]


def test_processes_that_share_a_benchmark_take_turns() -> None:
    share = SeedShare(
        index=1, count=2, benchmark_id="b" * 32, threads=1, visible=None, records="folder"
    )
    records, _, workload = measured(TWO_EPOCHS, also={"share": share}, runs=5, first_seed=7)
    assert [record.run_index for record in records] == [2, 4]
    assert workload.seeds == [8, 10]
    assert {record.load.own_seconds for record in records} == {None}  # the other's are not known


class ListLog(RunLog):
    """A log in memory."""

    def __init__(self) -> None:
        self.drafts: list[RunRecord] = []
        self.laps: list[Lap] = []

    def run_begun(self, draft: RunRecord) -> None:
        self.drafts.append(draft)

    def lap_over(
        self, lap: Lap, epoch: TrainedEpoch | None = None, evaluation: Evaluation | None = None
    ) -> None:
        self.laps.append(lap)


def test_what_is_logged_of_a_run_makes_its_record() -> None:
    log = ListLog()
    (record,), _, _ = measured(TWO_EPOCHS, also={"log": log})
    (draft,) = log.drafts
    assert [*draft.laps, *log.laps] == record.laps
    assert (draft.run_id, draft.seed, draft.status) == (record.run_id, record.seed, Status.FAILED)
    assert (draft.samples_seen, draft.final_accuracy) == (0, None)
    assert (draft.load.elapsed_seconds, draft.load.own_seconds) == (0.0, None)


class Stopped(RunProgress):
    """Somebody ends the benchmark with what this shows."""

    def __init__(self, by: str) -> None:
        self._by = by

    def run_started(self, index: int, seed: int) -> None:
        self._stop("start")

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        self._stop("evaluation")

    def run_finished(self, record: RunRecord) -> None:
        self._stop("end")

    def _stop(self, now: str) -> None:
        if now == self._by:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize(
    ("by", "statuses"),
    [
        ("start", [Status.INTERRUPTED]),
        ("evaluation", [Status.INTERRUPTED]),
        ("end", [Status.COMPLETED, Status.INTERRUPTED]),
    ],
)
def test_a_run_that_was_announced_leaves_a_record_whenever_it_is_interrupted(
    by: str, statuses: list[Status]
) -> None:
    with Interruption() as signals:
        records, errors, _ = measured(TWO_EPOCHS, display=Stopped(by), signals=signals, runs=3)
    assert [record.status for record in records] == statuses
    assert records[-1].reason == "ended by SIGTERM"
    assert isinstance(errors[-1], KeyboardInterrupt)


def test_interrupting_the_warm_up_leaves_no_record() -> None:
    clock = HandClock()

    class Interrupted(TimedEvents):
        def warm_up(self, *, whole_epoch: bool = False) -> Generator[Event, None, None]:
            raise KeyboardInterrupt
            yield STARTED

    sample = make_record()
    benchmark = BenchmarkSpec(
        recipe=REFERENCE,
        protocol=BenchmarkProtocol(),
        setup=lambda: sample.setup,
        environment=sample.environment,
        dataset=dict,
        command=[],
        label=None,
        startup_seconds=0.0,
    )
    instruments = Instruments(
        clock=clock, meter=HandMeter(), progress=RunProgress(), signals=OpenGate()
    )
    with pytest.raises(KeyboardInterrupt):
        list(run_benchmark(benchmark, Interrupted(clock, []), instruments))
