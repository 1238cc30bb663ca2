"""Live progress on a terminal: of a benchmark, drawn between its laps, and of downloads."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rich.progress
from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from bench import text
from bench.measure.progress import RunProgress
from bench.records.schema import RunRecord
from bench.report.progress import run_outcome
from bench.report.terminal.tables import console_for
from bench.text import printable
from mnist_cnn.data.progress import Progress

_REFRESH_SECONDS = 0.25
"""Shortest time between two redraws within a run. A redraw takes about a millisecond. No lap
contains it, but the time to target does: with short epochs, frequent redraws would add up."""


class LiveProgress(RunProgress):
    """A few lines that redraw themselves: run, epoch, accuracy, throughput and time left.

    It redraws only inside the calls that the runner makes between laps: it has no thread.

    Args:
        console: where to draw; None: on stderr.
        now: reads a clock, in seconds, for the time left.
    """

    def __init__(
        self, console: Console | None = None, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._console = console or console_for(sys.stderr)
        self._now = now
        # With redirection, every printed line would redraw the display.
        self._live = Live(
            console=self._console,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._runs = self._epochs = self._run = self._epochs_done = 0
        self._first_run_at: float | None = None
        """Start of the first measured run, on the clock `now`; None before it."""
        self._drawn_at = -math.inf
        self._recipe = self._position = self._training = self._accuracy = ""

    def announced(self, line: str) -> None:
        """Print a line that stays."""
        self._print_above(line)

    def benchmark_started(self, recipe_name: str, runs: int, epochs: int) -> None:
        """Start drawing."""
        self._recipe, self._runs, self._epochs = printable(recipe_name), runs, epochs
        self._live.start()

    def warmup_started(self) -> None:
        """Show that the warm-up runs."""
        self._position = "warm-up, not counted; this moves again after it"
        self._draw()

    def warmup_finished(self, seconds: float) -> None:
        """Print a line that stays, about the warm-up."""
        self._print_above(f"{self._recipe}: warm-up took {text.seconds(seconds)}")

    def run_started(self, index: int, seed: int) -> None:
        """Show the run's number and seed, without the epochs of the run before."""
        if self._first_run_at is None:
            self._first_run_at = self._now()
        self._run = index
        self._position = f"run {index} of {self._runs}  seed {seed}"
        self._training = self._accuracy = ""
        self._draw()

    def epoch_trained(self, epoch: int, epochs: int, loss: float, images_per_second: float) -> None:
        """Show the epoch, its loss and its throughput."""
        self._epochs_done = (self._run - 1) * self._epochs + epoch
        rate = text.quantity(images_per_second)
        self._training = f"epoch {epoch} of {epochs}  loss {loss:.4f}  {rate} images/s"
        self._draw_soon()

    def evaluated(self, epoch: int, accuracy: float, best: float, reached: bool) -> None:
        """Show the accuracy and the best one so far."""
        parts = [f"epoch {epoch}: {text.percent(accuracy)}", f"best {text.percent(best)}"]
        self._accuracy = "  ".join([*parts, "target crossed"] if reached else parts)
        self._draw_soon()

    def run_finished(self, record: RunRecord) -> None:
        """Print a line that stays, about the run."""
        self._epochs_done = self._run * self._epochs
        self._print_above(f"run {self._run} of {self._runs}: {run_outcome(record)}")

    def close(self) -> None:
        """Remove the display and show the cursor again."""
        self._live.stop()

    def _draw_soon(self) -> None:
        """Draw, unless the last redraw is more recent than `_REFRESH_SECONDS`."""
        if self._now() - self._drawn_at >= _REFRESH_SECONDS:
            self._draw()

    def _draw(self) -> None:
        self._drawn_at = self._now()
        lines = [f"{self._recipe}  {self._position}", self._training, self._accuracy]
        bar = Table.grid(padding=(0, 2, 0, 0))
        total = self._runs * self._epochs
        bar.add_row(
            ProgressBar(total=total, completed=self._epochs_done, width=40), self._time_left()
        )
        texts = [Text(line, no_wrap=True, overflow="crop") for line in lines if line]
        self._live.update(Group(*texts, bar), refresh=True)

    def _time_left(self) -> str:
        epochs_left = self._runs * self._epochs - self._epochs_done
        if self._first_run_at is None or not self._epochs_done or not epochs_left:
            return ""
        seconds_per_epoch = (self._now() - self._first_run_at) / self._epochs_done
        return f"{text.clock(seconds_per_epoch * epochs_left)} left"

    def _print_above(self, text: str) -> None:
        """Print a line that stays, above the display."""
        self._console.print(Text(printable(text)))


@contextmanager
def transfer_progress() -> Iterator[Progress]:
    """A bar on stderr for each download; where stderr is not a terminal, one line for each."""
    console = console_for(sys.stderr)
    if not console.is_terminal:
        yield _line_once(console)
        return
    columns = (
        rich.progress.TextColumn("{task.description}", markup=False),
        rich.progress.BarColumn(),
        rich.progress.DownloadColumn(),
        rich.progress.TransferSpeedColumn(),
        rich.progress.TimeRemainingColumn(),
    )
    with rich.progress.Progress(*columns, console=console, transient=True) as bars:
        tasks: dict[str, rich.progress.TaskID] = {}

        def update(what: str, done_bytes: int, total_bytes: int | None) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(printable(what), total=total_bytes)
            bars.update(tasks[what], completed=done_bytes, total=total_bytes)

        yield update


def _line_once(console: Console) -> Progress:
    """Print the name of each download when it begins."""
    printed: set[str] = set()

    def update(what: str, _done_bytes: int, _total_bytes: int | None) -> None:
        if what not in printed:
            printed.add(what)
            console.print(Text(printable(what)))

    return update
