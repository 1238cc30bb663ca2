"""Progress as plain lines and as a live display."""

from __future__ import annotations

import io
import sys
import threading

import pytest
from hypothesis import given, strategies as st
from rich.console import Console

from bench.measure.progress import RunProgress
from bench.records.schema import RunRecord, Status
from bench.report import terminal
from bench.report.progress import FailureProgress, PlainProgress, run_outcome, wants_live
from tests.factories import make_record


def _drive(progress: RunProgress, epochs: int = 3) -> None:
    """Tell a reporter what a benchmark of two runs tells it; the second diverges."""
    progress.announced("records go to results/here")
    progress.benchmark_started("fast", 2, epochs)
    progress.warmup_started()
    progress.warmup_finished(1.93)
    progress.run_started(1, 0)
    for epoch in range(1, epochs + 1):
        progress.epoch_trained(epoch, epochs, 0.5 / epoch, 3312.4)
        if epoch > 1:
            accuracy = 0.99 + epoch / 500
            progress.evaluated(epoch, accuracy, accuracy, accuracy >= 0.994)
    progress.run_finished(make_record(accuracies=[0.9912, 0.994, 0.996]))
    progress.run_started(2, 1)
    progress.epoch_trained(1, epochs, float("nan"), 3300.0)
    progress.run_finished(
        make_record(accuracies=[], status=Status.DIVERGED, reason="the loss is \x1b[1mno number")
    )
    progress.close()
    progress.close()


def test_plain_progress_is_a_line_an_epoch() -> None:
    stream = io.StringIO()
    _drive(PlainProgress(stream))
    assert stream.getvalue().splitlines() == [
        "records go to results/here",
        "fast: 2 runs of 3 epochs, after a warm-up that is not counted",
        "warm-up: 1.93 s",
        "run 1 of 2: seed 0",
        "run 1 of 2: epoch 1 of 3, loss 0.5000, 3,312 images/s",
        "run 1 of 2: epoch 2 of 3, loss 0.2500, 3,312 images/s, 99.40 %, best 99.40 %,"
        " target crossed",
        "run 1 of 2: epoch 3 of 3, loss 0.1667, 3,312 images/s, 99.60 %, best 99.60 %,"
        " target crossed",
        "run 1 of 2: reached 99.4 % in 14.6 s, 99.60 % at the end, 9,231 images/s",
        "run 2 of 2: seed 1",
        "run 2 of 2: epoch 1 of 3, loss nan, 3,300 images/s",
        "run 2 of 2: diverged: the loss is no number",
    ]


def test_silent_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _drive(RunProgress())
    assert capsys.readouterr() == ("", "")


def test_quiet_progress_says_what_failed(capsys: pytest.CaptureFixture[str]) -> None:
    _drive(FailureProgress())
    assert capsys.readouterr() == ("", "mnist-bench: run 1: diverged: the loss is no number\n")


def test_a_run_goes_on_when_nobody_reads_about_it() -> None:
    class Pipe(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError(32, "Broken pipe")

    _drive(PlainProgress(Pipe()))


def test_progress_goes_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    _drive(PlainProgress())
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "run 1 of 2" in printed.err


class Clock:
    """Tells the time it is told to."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def _live(clock: Clock) -> tuple[terminal.LiveProgress, io.StringIO]:
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, width=80, markup=False, highlight=False)
    return terminal.LiveProgress(console, clock), stream


def test_live_progress_shows_run_epoch_accuracy_best_speed_and_time_left() -> None:
    clock = Clock()
    progress, stream = _live(clock)
    progress.benchmark_started("reference", 3, 20)
    progress.run_started(1, 7)
    clock.seconds = 10.0
    progress.epoch_trained(1, 20, 0.25, 3312.4)
    stream.seek(stream.truncate(0))
    clock.seconds = 12.0
    progress.evaluated(1, 0.9871, 0.9871, False)
    shown = stream.getvalue()
    for part in ("reference", "run 1 of 3", "seed 7", "epoch 1 of 20", "3,312 images/s",
                 "loss 0.2500", "epoch 1: 98.71 %", "best 98.71 %", "11:48 left"):  # fmt: skip
        assert part in shown  # 59 epochs to come, of 12 s each
    progress.close()


def test_live_progress_draws_inside_its_calls_only_and_ends_what_it_began() -> None:
    before = threading.active_count()
    out, err = sys.stdout, sys.stderr
    progress, stream = _live(Clock())
    progress.benchmark_started("fast", 1, 2)
    progress.run_started(1, 0)
    assert threading.active_count() == before
    assert (sys.stdout, sys.stderr) == (out, err)
    assert "\x1b[?25l" in stream.getvalue()
    progress.close()
    assert stream.getvalue().rstrip("\n").count("\x1b[?25h") == 1
    _drive(_live(Clock())[0])


def test_live_progress_takes_no_more_than_four_redraws_a_second_of_a_run() -> None:
    clock = Clock()
    progress, stream = _live(clock)
    progress.benchmark_started("fast", 1, 1000)
    progress.run_started(1, 0)
    draws = 0
    for epoch in range(1, 101):  # a second of epochs of ten milliseconds
        clock.seconds = epoch / 100
        length = len(stream.getvalue())
        progress.epoch_trained(epoch, 1000, 0.1, 6e6)
        progress.evaluated(epoch, 0.99, 0.99, False)
        draws += len(stream.getvalue()) > length
    progress.close()
    assert draws == 4


def test_live_progress_leaves_a_line_for_each_run() -> None:
    progress, stream = _live(Clock())
    _drive(progress)
    shown = stream.getvalue()
    assert "fast: warm-up took 1.93 s" in shown
    assert "run 1 of 2: reached 99.4 % in 14.6 s" in shown
    assert "run 2 of 2: diverged: the loss is no number" in shown


@given(st.text(), st.text())
def test_live_progress_obeys_no_text(name: str, reason: str) -> None:
    progress, stream = _live(Clock())
    progress.benchmark_started(name, 1, 1)
    progress.run_started(1, 0)
    progress.run_finished(make_record(status=Status.FAILED, reason=reason))
    progress.close()
    ours = _live(Clock())
    ours[0].benchmark_started("x", 1, 1)
    ours[0].run_started(1, 0)
    ours[0].run_finished(make_record(status=Status.FAILED, reason="x"))
    ours[0].close()
    assert stream.getvalue().count("\x1b") == ours[1].getvalue().count("\x1b")


@pytest.mark.parametrize(
    ("terminal_there", "environ", "live"),
    [
        (True, {}, True),
        (True, {"CI": ""}, True),
        (True, {"CI": "false"}, True),
        (True, {"CI": "true"}, False),
        (True, {"TERM": "dumb"}, False),
        (False, {}, False),
    ],
)
def test_a_display_is_live_on_a_terminal_outside_ci(
    terminal_there: bool, environ: dict[str, str], live: bool
) -> None:
    class Stream(io.StringIO):
        def isatty(self) -> bool:
            return terminal_there

    assert wants_live(Stream(), environ) is live


@pytest.mark.parametrize(
    ("record", "text"),
    [
        (make_record(), "reached 99.4 % in 35.9 s, 99.46 % at the end, 9,231 images/s"),
        (make_record(accuracies=[0.98]), "missed 99.4 %, 98.00 % at the end, 9,231 images/s"),
        (make_record(status=Status.FAILED, reason="OSError: x"), "failed: OSError: x"),
        (make_record(status=Status.INTERRUPTED), "interrupted"),
    ],
)
def test_outcome(record: RunRecord, text: str) -> None:
    assert run_outcome(record) == text


def test_downloads_are_lines_where_there_is_no_terminal(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with terminal.transfer_progress() as progress:
        for done in range(3):
            progress("train-images \x1b[31m[red]", done, 3)
        progress("unpacking", 0, None)
    assert capsys.readouterr().err == "train-images [red]\nunpacking\n"


def test_downloads_are_bars_on_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with terminal.transfer_progress() as progress:
        progress("t10k-images", 1_000_000, 2_000_000)
        progress("unpacking", 0, None)
    assert "t10k-images" in capsys.readouterr().err
