"""What is stored of a benchmark that is not over: whose it is, and how far its run has come.

Kept beside the records while `run --checkpoint-every` measures, and removed when all runs are done.
"""

from __future__ import annotations

from typing import Literal

from pydantic import JsonValue

from bench.records.model import Count
from bench.records.schema import Evaluation, Lap, Model, TrainedEpoch


class RunState(Model):
    """A run as it stood at its last checkpoint, or at its start where it has none."""

    run_index: int
    """Which run of the benchmark, from 1."""
    seed: Count
    resumed: Count = 0
    """How often it had been taken up again."""
    epoch: Count = 0
    """The checkpoint's; 0 where there is none."""
    digests: tuple[str, ...] = ()
    """SHA-256 of each rank's file."""
    laps: tuple[Lap, ...] = ()
    """Of the run itself: without start-up and warm-up, which every process has of its own."""
    epochs: tuple[TrainedEpoch, ...] = ()
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def seconds(self) -> float:
        """What the run's clock showed."""
        return max((lap.start_seconds + lap.seconds for lap in self.laps), default=0.0)


class BenchmarkState(Model):
    """A benchmark that is not over."""

    version: Literal[1] = 1
    benchmark_id: str
    every: Count
    """Epochs between two checkpoints."""
    identity: dict[str, JsonValue]
    """What must be the same where it goes on, by name."""
    current: RunState | None = None
    """The run that was begun last."""
    previous: RunState | None = None
    """The same run at the checkpoint before."""
