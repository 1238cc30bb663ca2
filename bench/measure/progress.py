"""What a progress display is told while a benchmark runs."""

from __future__ import annotations

from typing import Protocol

from bench.records.schema import RunRecord


class RunProgress(Protocol):
    """What a reporter is told, in the order it happens."""

    def benchmark_started(self, recipe_name: str, runs: int, epochs: int) -> None:
        """So many runs of so many epochs are to come, after a warm-up."""

    def warmup_started(self) -> None:
        """The discarded warm-up run begins."""

    def warmup_finished(self, seconds: float) -> None:
        """The warm-up is over and took so long."""

    def run_started(self, index: int, seed: int) -> None:
        """A measured run, counted from 1, is about to begin."""

    def epoch_trained(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """An epoch of this run, counted from 1, is trained; its mean loss may be no number."""

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        """An evaluation is done: its accuracy, the run's best so far, whether the target is met."""

    def run_finished(self, record: RunRecord) -> None:
        """The run is over, however it ended."""

    def close(self) -> None:
        """Nothing more will come; may be called at any time, more than once."""


class SilentProgress:
    """Tells nobody: for --quiet, --json and every process but the main one."""

    def benchmark_started(self, recipe_name: str, runs: int, epochs: int) -> None:
        """Say nothing."""

    def warmup_started(self) -> None:
        """Say nothing."""

    def warmup_finished(self, seconds: float) -> None:
        """Say nothing."""

    def run_started(self, index: int, seed: int) -> None:
        """Say nothing."""

    def epoch_trained(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """Say nothing."""

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        """Say nothing."""

    def run_finished(self, record: RunRecord) -> None:
        """Say nothing."""

    def close(self) -> None:
        """Do nothing."""
