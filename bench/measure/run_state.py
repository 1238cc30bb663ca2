"""The stored state of an unfinished benchmark: its identity and the state of its current run.

It is beside the records while `run --checkpoint-every` measures, and removed after the last run.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, JsonValue

from bench.records.model import Count, Whole
from bench.records.schema import Evaluation, Lap, Model, TrainedEpoch


class RunState(Model):
    """The state of a run at its last checkpoint, or at its start before the first one."""

    run_index: Annotated[Whole, Field(ge=1)]
    """Index of the run in the benchmark, from 1."""
    seed: Count
    resumed: Count = 0
    """Number of times that the run was resumed."""
    epoch: Count = 0
    """Epoch of the checkpoint; 0 before the first one."""
    digests: tuple[str, ...] = ()
    """SHA-256 of the checkpoint file of each rank."""
    laps: tuple[Lap, ...] = ()
    """Laps of the run itself, without start-up and warm-up, which each process has of its own."""
    epochs: tuple[TrainedEpoch, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def seconds(self) -> float:
        """Reading of the run's clock, in seconds."""
        return max((lap.start_seconds + lap.seconds for lap in self.laps), default=0.0)


class BenchmarkState(Model):
    """The state of an unfinished benchmark."""

    version: Annotated[Whole, Field(ge=1, le=1)] = 1
    benchmark_id: str
    every: Annotated[Whole, Field(ge=1)]
    """Epochs between two checkpoints."""
    identity: dict[str, JsonValue]
    """What must be the same when the benchmark is resumed, by name."""
    current: RunState | None = None
    """State of the run that began last; null before the first run."""
    previous: RunState | None = None
    """State of the same run at the previous checkpoint; null where there is none."""
