"""Tables on a terminal: whole at any width, and safe whatever a record says."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st
from rich.cells import cell_len
from rich.console import Console, RenderableType

from bench.analysis.benchmarks import Benchmark, group_runs
from bench.records.schema import RunRecord, Status
from bench.report import terminal
from bench.report.terminal.sparkline import BLOCKS, courses
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
    _line(lines, "recipe", "device", "reached", "to 99.4 %", "a success", "images/s", "accuracy")
    _line(lines, "fast ", "AMD EPYC ", "5/5", "35.9 s", "36.1 s", "9,231", "99.46 %")
    _line(lines, "reference", "3/3", "14:41 min", "1,242", "99.57 %")
    _line(lines, "8 records in results/amd-epyc-2-cores")


def test_rows_that_differ_in_the_label_only_show_it_on_a_narrow_terminal_too() -> None:
    before, after = (make_benchmark((6.4, 6.5, 6.6), label=label) for label in ("before", "after"))
    lines = _printed(terminal.summary(_benchmarks([*before, *after])), 80)
    _line(lines, "fast ", "before ", "3/3")
    _line(lines, "fast ", "after ", "3/3")
    other = make_benchmark((6.4, 6.5, 6.6), label="after", setup={"threads": 1})
    lines = _printed(terminal.summary(_benchmarks([*before, *other])), 80)
    assert not any("recipe" in line and "label" in line for line in lines)


@pytest.mark.parametrize("width", [80, 140])
def test_a_median_stands_above_its_own_interval(width: int) -> None:
    """From six runs on: the ends are runs, rounded outwards."""
    runs = make_benchmark((6.41, 6.52, 6.71, 6.45, 6.6, 6.5))
    lines = _printed(terminal.summary(_benchmarks(runs)), width)
    fast = _line(lines, "fast ", "AMD EPYC ", "6/6", "36.0 s", "36.1 s")
    below = lines[lines.index(fast) + 1]
    assert all(word in below for word in ("open", "35.4–37.0", "8,941–9,361", "99.46–99.46"))
    missed = make_record(
        accuracies=(*[0.97] * 5, 0.98), benchmark_id=runs[0].benchmark_id, protocol={"runs": 6}
    )
    lines = _printed(terminal.summary(_benchmarks([*runs[1:], missed])), width)
    fast = _line(lines, "fast ", "AMD EPYC ", "5/6")
    assert "from 35.65" in lines[lines.index(fast) + 1]


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
    _line(lines, "fast on AMD EPYC, 1 process, 2 threads, bf16 amx, protocol 1")
    assert "fast on AMD EPYC, 1 process, 2 threads, bf16, protocol 1" in lines


def test_a_first_crossing_is_not_called_reaching_the_target() -> None:
    crossed = make_benchmark(accuracies=(0.99, 0.995, 0.993), protocol={"version": 2})
    lines = _printed(terminal.summary(_benchmarks(crossed)), 160)
    assert "fast on AMD EPYC, 1 process, 2 threads, bf16" in lines
    assert "first crossing" in _line(lines, "run", "outcome")
    _line(lines, "missed", "14.4 s", "99.30 %")
    _line(lines, "fast", "0/3")


def test_a_narrow_page_leaves_out_columns_and_says_which() -> None:
    both = _benchmarks(_fast())
    wide, narrow = (_printed(terminal.summary(both), width) for width in (140, 80))
    assert "memory" in _line(wide, "recipe", "device")
    assert "memory" not in _line(narrow, "recipe", "device")
    _line(narrow, "Left out: train only, cold, memory, torch, commit; see report --to csv.")
    assert not any("Left out" in line for line in wide)


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
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
