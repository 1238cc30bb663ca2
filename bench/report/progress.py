"""Progress as plain lines, for pipes, log files and CI."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TextIO

from bench import text
from bench.analysis.metrics import first_crossing_seconds, images_per_second, time_to_target_seconds
from bench.measure.progress import RunProgress
from bench.records.schema import RunRecord, Status
from bench.text import printable


class PlainProgress(RunProgress):
    """Prints one plain line per epoch.

    Args:
        stream: where the lines go; None: to `sys.stderr`, looked up for each line.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._runs = 0
        self._run = ""
        self._epoch = ""
        """Start of the line of an epoch that is not evaluated yet; empty when there is none."""

    def announced(self, line: str) -> None:
        """Print the line."""
        self._line(line)

    def benchmark_started(self, recipe_name: str, runs: int, epochs: int) -> None:
        """Print how many runs and epochs follow."""
        self._runs = runs
        plan = f"{text.count_of(runs, 'run')} of {text.count_of(epochs, 'epoch')}"
        self._line(f"{recipe_name}: {plan}, after a warm-up that is not counted")

    def warmup_finished(self, seconds: float) -> None:
        """Print how long it took."""
        self._line(f"warm-up: {text.seconds(seconds)}")

    def run_started(self, index: int, seed: int) -> None:
        """Print which run begins."""
        self._run = f"run {index} of {self._runs}"
        self._line(f"{self._run}: seed {seed}")

    def epoch_trained(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """Keep the line until the evaluation of the epoch completes it."""
        self._finish_epoch()
        rate = text.quantity(images_per_second)
        self._epoch = f"{self._run}: epoch {epoch} of {epochs}, loss {loss:.4f}, {rate} images/s"

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        """Print the line of the epoch."""
        start = self._epoch or f"{self._run}: epoch {epoch}"
        self._epoch = f"{start}, {text.percent(accuracy)}, best {text.percent(best)}"
        if reached:
            self._epoch += ", target crossed"
        self._finish_epoch()

    def run_finished(self, record: RunRecord) -> None:
        """Print how the run ended."""
        self._finish_epoch()
        self._line(f"{self._run}: {run_outcome(record)}")

    def close(self) -> None:
        """Print the line that still waits for its evaluation."""
        self._finish_epoch()

    def _finish_epoch(self) -> None:
        if self._epoch:
            self._line(self._epoch)
            self._epoch = ""

    def _line(self, line: str) -> None:
        _print_line(line, self._stream)


class FailureProgress(RunProgress):
    """Prints the line of a run that failed or diverged, and nothing else: --quiet and --json."""

    def run_finished(self, record: RunRecord) -> None:
        """Print why the run failed, if it has."""
        if record.status in (Status.FAILED, Status.DIVERGED):
            _print_line(f"mnist-bench: run {record.run_index}: {run_outcome(record)}")


def _print_line(line: str, stream: TextIO | None = None) -> None:
    # A closed pipe (`2>&1 | head`) or a full disk must not end a run.
    with contextlib.suppress(OSError):
        print(printable(line), file=stream or sys.stderr, flush=True)


def wants_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether the stream is a terminal that can redraw lines, outside CI."""
    in_ci = environ.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not in_ci and environ.get("TERM") not in ("dumb", "unknown")


def run_outcome(record: RunRecord) -> str:
    """How a run ended, in one line: ``"reached 99.4 % in 41.2 s, 99.46 % at the end, ..."``."""
    target = text.target(record.protocol.target_accuracy)
    reached_seconds = time_to_target_seconds(record)
    if record.status is not Status.COMPLETED:
        reason = record.reason or record.status.value
        names_status = reason.startswith(record.status.value)  # "interrupted from the keyboard"
        return text.printable(reason if names_status else f"{record.status.value}: {reason}")
    if reached_seconds is None:
        parts = [f"missed {target}"]
        crossing_seconds = first_crossing_seconds(record)
        if crossing_seconds is not None:
            parts.append(f"first crossing after {text.seconds(crossing_seconds)}")
    else:
        parts = [f"reached {target} in {text.seconds(reached_seconds)}"]
    if not record.counts:
        parts.insert(0, record.outcome)
    if record.final_accuracy is not None:
        parts.append(f"{text.percent(record.final_accuracy)} at the end")
    rate = images_per_second(record)
    if rate is not None:
        parts.append(f"{text.quantity(rate)} images/s")
    return ", ".join(parts)
