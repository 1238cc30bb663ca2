"""How a benchmark tells whoever watches it how far it is, without a terminal's arts.

The runner calls these between laps, never inside one, and reporters do what they do within the
call: no thread of theirs may take time from a lap.
"""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Mapping
from typing import TextIO

from bench import text
from bench.analysis.metrics import images_per_second, time_to_target_seconds
from bench.records.schema import RunRecord, Status
from bench.text import printable


class PlainProgress:
    """A plain line an epoch: for pipes, log files and CI.

    Args:
        stream: where the lines go; stderr as it is at the time, when None.
    """

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream
        self._runs = 0
        self._run = ""
        self._epoch = ""
        """What is known of the epoch whose evaluation is still to come."""

    def benchmark_started(self, recipe_name: str, runs: int, epochs: int) -> None:
        """Say what is to come."""
        self._runs = runs
        what = f"{text.count_of(runs, 'run')} of {text.count_of(epochs, 'epoch')}"
        self._line(f"{recipe_name}: {what}, after a warm-up that is not counted")

    def warmup_started(self) -> None:
        """Say nothing: it ends soon."""

    def warmup_finished(self, seconds: float) -> None:
        """Say how long it took."""
        self._line(f"warm-up: {text.seconds(seconds)}")

    def run_started(self, index: int, seed: int) -> None:
        """Say which run begins."""
        self._run = f"run {index} of {self._runs}"
        self._line(f"{self._run}: seed {seed}")

    def epoch_trained(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """Keep the line until the epoch's evaluation completes it."""
        self._finish_epoch()
        rate = text.quantity(images_per_second)
        self._epoch = f"{self._run}: epoch {epoch} of {epochs}, loss {loss:.4f}, {rate} images/s"

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        """Say what the epoch gave."""
        start = self._epoch or f"{self._run}: epoch {epoch}"
        self._epoch = f"{start}, {text.percent(accuracy)}, best {text.percent(best)}"
        if reached:
            self._epoch += ", target reached"
        self._finish_epoch()

    def run_finished(self, record: RunRecord) -> None:
        """Say how it ended."""
        self._finish_epoch()
        self._line(f"{self._run}: {run_outcome(record)}")

    def close(self) -> None:
        """Say what was still held back."""
        self._finish_epoch()

    def _finish_epoch(self) -> None:
        if self._epoch:
            self._line(self._epoch)
            self._epoch = ""

    def _line(self, text: str) -> None:
        # A run must not end because nobody reads about it any more (`2>&1 | head`, a full disk).
        with contextlib.suppress(OSError):
            print(printable(text), file=self._stream or sys.stderr, flush=True)


def wants_live(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether a display that redraws itself makes sense: on a capable terminal, outside CI."""
    in_ci = environ.get("CI", "").lower() not in ("", "0", "false")
    return stream.isatty() and not in_ci and environ.get("TERM") not in ("dumb", "unknown")


def run_outcome(record: RunRecord) -> str:
    """How a run ended, in a line: ``"reached 99.4 % in 41.2 s, 99.46 % at the end, ..."``."""
    target = text.target(record.protocol.target_accuracy)
    reached_seconds = time_to_target_seconds(record)
    if record.status is not Status.COMPLETED:
        reason = record.reason or record.status.value
        known = reason.startswith(record.status.value)  # "interrupted from the keyboard"
        return text.printable(reason if known else f"{record.status.value}: {reason}")
    if reached_seconds is None:
        parts = [f"missed {target}"]
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
