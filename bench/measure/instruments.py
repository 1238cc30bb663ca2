"""What the runner measures with: clock, meter, display, signal gate, workload and journal."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from bench.measure.progress import RunProgress
from bench.measure.run_state import RunState
from bench.records.schema import (
    Energy,
    Evaluation,
    Lap,
    Load,
    Monitoring,
    PeakMemory,
    RunRecord,
    TrainedEpoch,
)
from mnist_cnn.events import Event, Mistakes


class Clock(Protocol):
    """What the runner needs of a clock; `bench.measure.clock.DeviceClock` is the real one."""

    def now(self) -> float:
        """Seconds since an arbitrary start, once the device's queue is empty."""

    def together(self) -> float:
        """Wait for every rank, then return `now`."""

    def across_ranks(self, values: Sequence[float], how: Literal["max", "sum"]) -> list[float]:
        """Maximum or sum of each value over the ranks."""


class Meter(Protocol):
    """What the runner needs to know of the machine; `bench.machine.meter.Meter` is the real one."""

    def start(self) -> None:
        """Start measuring a run."""

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this rank and its children have used since `start`."""

    def stop(self, own_seconds: float) -> tuple[Load, PeakMemory, Energy, Monitoring]:
        """Stop measuring; `own_seconds` are the core-seconds of all ranks together."""


class SignalGate(Protocol):
    """When a signal may end the work; `bench.measure.interruption.Interruption` is the real one."""

    def allow(self) -> None:
        """Let signals end the work."""

    def hold(self) -> None:
        """Let signals wait."""

    def check(self) -> None:
        """End the work if a signal was lost inside another module's ``except``."""


class RunLog(Protocol):
    """Told of everything as it happens; `bench.measure.run_log.FileRunLog` is the real one."""

    def run_begun(self, draft: RunRecord) -> None:
        """A run begins; `draft` is its record if it ended at once."""

    def lap_over(
        self, lap: Lap, epoch: TrainedEpoch | None = None, evaluation: Evaluation | None = None
    ) -> None:
        """A lap is over; it trained an epoch, or was an evaluation, or neither."""


class Workload(Protocol):
    """What is measured; `bench.measure.workload.MnistTraining` is the real one."""

    def warm_up(self, *, whole_epoch: bool = False) -> Generator[Event, None, None]:
        """A discarded run of an epoch that touches everything that a measured run does.

        Except for the test set. The epoch has few images, or with `whole_epoch` all of them.
        """

    def run(self, seed: int) -> Generator[Event, None, None]:
        """One training from random weights, which reads the data first."""

    def mistakes(self) -> Mistakes | None:
        """Images that the network of the last completed run misclassifies; every rank calls it."""


class Journal(Protocol):
    """State from which another process resumes; `bench.measure.journal.Journal` is the real one."""

    @property
    def earlier(self) -> Sequence[RunRecord]:
        """Records of the runs that are over already, in order."""

    def begin(self, index: int, seed: int) -> RunState:
        """Begin or resume a run.

        Returns:
            The state to start from.
        """

    def keep(self, state: RunState) -> None:
        """Store the state of the run at a checkpoint."""

    def finish(self) -> None:
        """Forget the benchmark: all runs are over and their records are saved."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruments:
    """What a benchmark is measured with and shown by."""

    clock: Clock
    meter: Meter
    progress: RunProgress
    signals: SignalGate
    explain: Callable[[RunRecord, BaseException | None], RunRecord] = lambda record, _: record
    """Gives a record its true reason, from the error that has ended its run."""
