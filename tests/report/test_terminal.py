from __future__ import annotations

import io
import re
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from bench import text
from bench.analysis.benchmarks import Benchmark, group_runs
from bench.measure.progress import RunProgress
from bench.records.schema import RunRecord, Status
from bench.report import terminal
from bench.report.progress import PlainProgress, run_outcome, wants_live
from bench.report.terminal.sparkline import BLOCKS, courses
from bench.text import memory, printable, seconds, seconds_between
from tests.factories import make_benchmark, make_record, records

H200 = {"device": "cuda", "device_name": "NVIDIA H200"}
LONG_NAME = {"device_name": "AMD EPYC 9V74 80-Core Processor", "processes": 2, "threads": 1}


def _benchmarks(runs: Sequence[RunRecord]) -> list[Benchmark]:
    folder = Path("results/amd-epyc-2-cores")
    return group_runs(
        (folder / f"20251103T093000Z-fast-{run.run_id[:8]}.json", run) for run in runs
    )


def _fast() -> list[RunRecord]:
    return make_benchmark((6.4, 6.5, 6.7, 6.45, 6.6))


def _reference() -> list[RunRecord]:
    return make_benchmark(
        (48.3, 47.2, 50.1),
        accuracies=[0.97] * 17 + [0.9941, 0.9955, 0.9957],
        division="closed",
        recipe={"name": "reference"},
        setup=LONG_NAME,
        environment={"dirty": True},
    )


def _mixed() -> list[RunRecord]:
    """One run that reached the target, one that missed it, one that was stopped."""
    reached, *_ = make_benchmark((0.06, 0.06, 0.06), setup=H200, label="scouting")
    common: dict[str, Any] = {
        "benchmark_id": reached.benchmark_id,
        "setup": H200,
        "label": "scouting",
        "protocol": {"runs": 3},
    }
    missed = make_record(accuracies=[0.98, 0.9939], run_index=2, **common)
    missed = missed.model_copy(update={"recipe": reached.recipe})
    stopped = make_record(
        run_index=3, status=Status.INTERRUPTED, reason="interrupted from the keyboard", **common
    )
    return [reached, missed, stopped]


def _printed(renderable: RenderableType, width: int, encoding: str = "utf-8") -> list[str]:
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding, errors="replace")
    Console(file=stream, width=width, highlight=False, markup=False).print(renderable)
    stream.seek(0)
    return stream.read().splitlines()


def _line(lines: list[str], *words: str) -> str:
    [line] = [line for line in lines if all(word in line for word in words)]
    return line


# --- Tables


@pytest.mark.parametrize("width", [80, 140])
@pytest.mark.parametrize("make", [_fast, _reference, _mixed])
def test_tables_are_whole_at_any_usual_width(
    make: Callable[[], list[RunRecord]], width: int
) -> None:
    both = _benchmarks(make())
    for renderable in (terminal.summary(both), terminal.runs(both)):
        lines = _printed(renderable, width)
        assert max(map(len, lines)) <= width
        assert not any("…" in line or "..." in line for line in lines)


@pytest.mark.parametrize("width", [80, 140])
def test_a_reader_sees_at_once_what_matters(width: int) -> None:
    lines = _printed(terminal.summary(_benchmarks([*_fast(), *_reference()])), width)
    _line(lines, "recipe", "device", "reached", "to 99.4 %", "images/s", "accuracy")
    fast = _line(lines, "fast ", "AMD EPYC ", "5/5", "35.9 s", "9,231", "99.46 %")
    below = lines[lines.index(fast) + 1]
    assert all(word in below for word in ("open", "35.3–36.8", "8,982–9,400", "99.46–99.46"))
    _line(lines, "reference", "3/3", "14:41 min", "1,242", "99.57 %")
    _line(lines, "8 records in results/amd-epyc-2-cores")


@pytest.mark.parametrize("width", [80, 140])
def test_each_run_says_whether_it_reached_the_target(width: int) -> None:
    lines = _printed(terminal.summary(_benchmarks(_mixed())), width)
    assert _line(lines, " reached ", "3.70 s").split()[:4] == ["1", "0", "reached", "5"]
    assert _line(lines, " missed ", "%").split()[2:5] == ["missed", "–", "–"]
    assert _line(lines, " interrupted ", "99.46 %").split()[2] == "interrupted"
    _line(lines, "run 3: interrupted from the keyboard")
    # Of two completed runs one missed: there is no median time, and no claim.
    assert _line(lines, "NVIDIA H200 ", "1/3").split("1/3")[1].split()[0] == "–"


def test_what_computed_the_steps_is_named_where_it_was_not_torch() -> None:
    native = make_benchmark((4.0, 4.1, 4.2), setup={"kernels": "amx"})
    lines = _printed(terminal.summary(_benchmarks([*_fast(), *native])), 140)
    _line(lines, "fast on AMD EPYC, 1 process, 2 threads, bf16 amx")
    assert "fast on AMD EPYC, 1 process, 2 threads, bf16" in lines


def test_a_narrow_page_leaves_out_columns_and_says_which() -> None:
    both = _benchmarks(_fast())
    wide, narrow = (_printed(terminal.summary(both), width) for width in (140, 80))
    assert "memory" in _line(wide, "recipe", "device")
    assert "memory" not in _line(narrow, "recipe", "device")
    _line(narrow, "Left out: train only, cold, memory, torch, commit; see report --to csv.")
    assert not any("Left out" in line for line in wide)


@given(st.integers(20, 200))
def test_no_line_is_longer_than_the_page(width: int) -> None:
    lines = _printed(terminal.summary(_benchmarks([*_fast(), *_reference(), *_mixed()])), width)
    assert max(map(len, lines)) <= width


def test_targets_that_differ_are_named() -> None:
    low = make_benchmark((6.0, 6.0, 6.0), protocol={"target_accuracy": 0.99})
    lines = _printed(terminal.summary(_benchmarks([*_fast(), *low])), 140)
    assert "to target" in _line(lines, "recipe", "device", " target ")
    _line(lines, "5/5", "99.4 %", "35.9 s")
    _line(lines, "3/3", "99 %", "26.8 s")


def test_every_warning_that_applies_is_printed_once_with_whom_it_concerns() -> None:
    lines = _printed(terminal.summary(_benchmarks([*_fast(), *_mixed(), *_reference()])), 300)
    _line(lines, "! fast on NVIDIA H200 (", "), 1 of 3 runs: missed the target")
    _line(lines, "! fast on NVIDIA H200 (", "), 1 of 3 runs: not completed")
    _line(lines, "! fast on NVIDIA H200 (", "): fewer than 3 completed runs")
    _line(
        lines, "! reference on AMD EPYC 9V74 80-Core Processor (", "), 3 of 3 runs: files differed"
    )
    quiet = _printed(terminal.summary(_benchmarks(_fast())), 300)
    assert not any(line.startswith("!") for line in quiet)


def test_runs_that_were_not_saved_are_said_to_be_lost() -> None:
    lines = _printed(terminal.summary(group_runs((None, run) for run in _fast())), 80)
    _line(lines, "> no record of 5 runs")


def test_nothing_is_a_table_too() -> None:
    assert _printed(terminal.summary([]), 80)


@given(st.lists(records(), min_size=1, max_size=2))
def test_text_from_records_is_inert(runs: list[RunRecord]) -> None:
    for line in _printed(terminal.summary(_benchmarks(runs)), 140):
        assert line.isprintable()
        assert cell_len(line) <= 140


def test_markup_is_text() -> None:
    run = make_record(label="[bold]x[/bold]", setup={"device_name": "[link=http://a]GPU[/link]"})
    lines = _printed(terminal.summary(_benchmarks([run])), 200)
    _line(lines, "[bold]x[/bold]", "[link=http://a]GPU[/link]", "1/1")


def test_a_screen_that_knows_ascii_alone_gets_dashes() -> None:
    lines = _printed(terminal.summary(_benchmarks(_mixed())), 80, "ascii")
    assert all(line.isascii() for line in lines)
    assert _line(lines, " missed ", "%").split()[2:5] == ["missed", "-", "-"]


def test_a_pipe_is_wider_than_rich_thinks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert terminal.console_for(io.StringIO()).width == 140
    monkeypatch.setenv("COLUMNS", "90")
    assert terminal.console_for(io.StringIO()).width == 90


def test_the_course_of_a_run_is_drawn_where_there_is_one() -> None:
    rising = make_record(accuracies=[0.97, 0.99, 0.9941], run_index=1)
    falling = make_record(accuracies=[0.9941, 0.98], run_index=2)
    short = make_record(accuracies=[0.5], run_index=3)
    lines = _printed(terminal.runs(_benchmarks([rising, falling, short])), 140)
    assert sum("evaluations" in line and "record" in line for line in lines) == 3
    assert "▁▆█" in "".join(lines)
    assert "█▃" in "".join(lines)
    ascii_only = _printed(terminal.runs(_benchmarks([rising, falling])), 140, "ascii")
    assert any("_=#" in line for line in ascii_only)
    assert not any(
        "evaluations" in line for line in _printed(terminal.runs(_benchmarks([short])), 140)
    )
    long = make_record(accuracies=[0.9 + number / 1_000 for number in range(90)])
    [drawn] = courses([long])
    assert len(drawn) == 20
    assert drawn == "".join(sorted(drawn))
    assert drawn[-1] == "█"


@given(st.lists(records(), max_size=4))
def test_a_course_is_made_of_blocks_whatever_the_record(runs: list[RunRecord]) -> None:
    for line, run in zip(courses(runs), runs, strict=True):
        assert set(line) <= set(BLOCKS)
        assert len(line) == (len(run.evaluations) if len(run.evaluations) > 1 else 0)


def test_colour_is_the_terminals_own_and_can_be_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A theme for a light background redefines the 8 basic colours; fixed ones it could not."""
    codes = []
    for refused in (False, True):
        monkeypatch.setenv("NO_COLOR", "1" if refused else "")
        stream = io.StringIO()
        console = Console(file=stream, width=140, force_terminal=True, color_system="truecolor")
        console.print(terminal.summary(_benchmarks([*_mixed(), *_fast()])))
        parts = re.findall(r"\x1b\[([\d;]*)m", stream.getvalue())
        codes.append({code for part in parts for code in part.split(";")})
    coloured, plain = codes
    assert {"31", "32", "33"} <= coloured <= {"", "0", "1", "2", "31", "32", "33"}
    assert plain <= {"", "0", "1", "2"}


# --- How values are written


@given(st.text())
@example("\x1b[31mred\x1b[0m")
@example("\x1b]0;title\x07")
@example("\x9b2J\u202e\u200b")
def test_nothing_inert_is_obeyed_by_a_terminal(text: str) -> None:
    assert printable(text).isprintable()
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain text, größer, 東京", "plain text, größer, 東京"),
        ("\x1b[1;31mred\x1b[0m", "red"),
        ("\x1b]8;;http://x\x1b\\link\x1b]8;;\x07", "link"),
        ("two\nlines\tand\r\ntabs", "two lines and  tabs"),
        ("a\x00b\x7fc\u202ed", "abcd"),
        ("[red]not markup[/red]", "[red]not markup[/red]"),
    ],
)
def test_inert(text: str, expected: str) -> None:
    assert printable(text) == expected


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0 s"),
        (0.03124, "0.0312 s"),
        (0.756, "0.756 s"),
        (7.0, "7.00 s"),
        (41.23, "41.2 s"),
        (112.6, "113 s"),
        (120.0, "2:00 min"),
        (1052.4, "17:32 min"),
        (3599.9, "60:00 min"),
        (3723.0, "1:02:03 h"),
        (1e9, "1,000,000,000 s"),
    ],
)
def test_seconds(value: float, text: str) -> None:
    assert seconds(value) == text


@pytest.mark.parametrize(
    ("low", "high", "like", "text"),
    [
        (40.97, 42.32, 41.6, "41.0–42.3"),
        (110.2, 150.7, 113.0, "110–151"),
        (110.2, 150.7, 130.0, "1:50–2:31"),
        (0.7551, 0.7569, 0.756, "0.7551–0.7569"),
        (1051.8, 1052.4, 1052.0, "17:31.8–17:32.4"),
        (-3.1, 12.0, 4.0, "-3 to 12"),
        (3500.0, 3700.0, 3650.0, "0:58:20–1:01:40"),
        (41.0, 41.0, 41.0, "41.00–41.00"),
    ],
)
def test_seconds_between(low: float, high: float, like: float, text: str) -> None:
    assert seconds_between(low, high, like) == text


@given(st.integers(0, 10_000))
def test_an_accuracy_of_ten_thousand_images_is_shown_exactly(correct: int) -> None:
    assert text.percent(correct / 10_000) == f"{correct // 100}.{correct % 100:02} %"


def test_an_accuracy_is_never_rounded_up_to_the_target() -> None:
    assert text.percent(0.99395) == "99.39 %"
    assert text.percent(0.99399999) == "99.39 %"


@pytest.mark.parametrize(
    ("size", "text"),
    [(812 * 1024**2, "812 MiB"), (1020 * 1024**2, "0.996 GiB"), (139 * 1024**3, "139 GiB")],
)
def test_memory(size: int, text: str) -> None:
    assert memory(size) == text


# --- Progress


def _drive(progress: RunProgress, epochs: int = 3) -> None:
    """Tell a reporter what a benchmark of two runs tells it; the second diverges."""
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
        "fast: 2 runs of 3 epochs, after a warm-up that is not counted",
        "warm-up: 1.93 s",
        "run 1 of 2: seed 0",
        "run 1 of 2: epoch 1 of 3, loss 0.5000, 3,312 images/s",
        "run 1 of 2: epoch 2 of 3, loss 0.2500, 3,312 images/s, 99.40 %, best 99.40 %,"
        " target reached",
        "run 1 of 2: epoch 3 of 3, loss 0.1667, 3,312 images/s, 99.60 %, best 99.60 %,"
        " target reached",
        "run 1 of 2: reached 99.4 % in 14.6 s, 99.60 % at the end, 9,231 images/s",
        "run 2 of 2: seed 1",
        "run 2 of 2: epoch 1 of 3, loss nan, 3,300 images/s",
        "run 2 of 2: diverged: the loss is no number",
    ]


def test_silent_progress_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _drive(RunProgress())
    assert capsys.readouterr() == ("", "")


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
