"""What the runner is handed: clock, meter, gate, workload, journal."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Literal, Protocol

from bench.measure.run_state import RunState
from bench.records.schema import Energy, Load, Monitoring, PeakMemory, RunRecord
from mnist_cnn import events as told
from mnist_cnn.events import Event


class Clock(Protocol):
    """What the runner needs of a clock; `bench.measure.clock.DeviceClock` is the real one."""

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
    """Says when a signal may end what is going on; `bench.measure.interruption` is the real one."""

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
    """Remembers a benchmark so that another process can resume it; see `bench.measure.journal`."""

    @property
    def earlier(self) -> Sequence[RunRecord]:
        """The runs that are over already, in order."""

    def begin(self, index: int, seed: int) -> RunState:
        """A run begins, or goes on from what is returned."""

    def keep(self, unfinished: RunState) -> None:
        """A run has come so far."""

    def finish(self) -> None:
        """All runs are over, and their records kept."""
