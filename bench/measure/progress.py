"""Progress of a benchmark: the calls that a display receives while it runs."""

from __future__ import annotations

from bench.records.schema import RunRecord


class RunProgress:
    """Receives each step of a benchmark, in the order of time; this class itself shows nothing.

    The runner makes these calls between laps, never inside one. A display subclasses it and
    overrides what it shows. It draws within the call: a thread of its own would take time from a
    lap. `RunProgress()` is for every process but the main one.
    """

    def announced(self, line: str) -> None:
        """Something that people should know before the benchmark begins."""

    def benchmark_started(self, recipe_name: str, runs: int, epochs: int) -> None:
        """A warm-up begins, then `runs` runs of `epochs` epochs each."""

    def warmup_started(self) -> None:
        """The discarded warm-up run begins."""

    def warmup_finished(self, seconds: float) -> None:
        """The warm-up is over; `seconds` is how long it took."""

    def run_started(self, index: int, seed: int) -> None:
        """A measured run begins; `index` counts from 1."""

    def epoch_trained(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """An epoch is trained; `epoch` counts from 1, the mean loss may be NaN or infinite."""

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        """An evaluation is done.

        Args:
            epoch: the epoch it follows, counted from 1.
            accuracy: this evaluation's accuracy, a fraction.
            best: the run's best accuracy so far, a fraction.
            reached: whether an evaluation of the run was at its target or above; only the last one
                decides in the open division.
        """

    def run_finished(self, record: RunRecord) -> None:
        """The run is over, however it ended."""

    def close(self) -> None:
        """No call follows; may be called at any time, more than once."""
