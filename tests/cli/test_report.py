from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from hypothesis import given, settings, strategies as st
from rich.console import Console

from bench.analysis import benchmarks, columns
from bench.analysis.columns import Row, benchmark_column_names, run_column_names
from bench.analysis.rows import benchmark_row, benchmark_rows, run_rows
from bench.records import store
from bench.records.schema import RunRecord
from bench.report import terminal
from bench.report.formats.csv import to_csv
from bench.report.formats.json import to_json
from mnist_cnn import console
from tests.factories import ENERGY, MONITORING, make_benchmark, make_record

ROOT = Path(__file__).resolve().parents[2]

CELLS = st.none() | st.text() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
ROWS = st.lists(st.fixed_dictionaries({"a": CELLS, "b": CELLS}), max_size=4)


def report(*arguments: object) -> int:
    """Run the registered command; returns its exit status."""
    from bench.cli.report import report as command

    app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)
    app.command()(command)
    return console.run(app, "mnist-bench", [str(argument) for argument in arguments])


@pytest.fixture(autouse=True)
def _no_wishes(monkeypatch: pytest.MonkeyPatch) -> None:
    for wish in ("COLUMNS", "FORCE_COLOR"):
        monkeypatch.delenv(wish, raising=False)


@pytest.fixture
def runs() -> list[RunRecord]:
    return make_benchmark((6.4, 6.5, 6.7))


@pytest.fixture
def results(tmp_path: Path, runs: list[RunRecord]) -> Path:
    for run in runs:
        store.save_record(run, tmp_path / "results")
    return tmp_path / "results"


def test_json_is_all_there_is_on_stdout(
    results: Path, runs: list[RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(results, "--to", "json") == 0
    printed = capsys.readouterr()
    [row] = json.loads(printed.out)
    assert printed.err == ""
    [benchmark] = benchmarks.group_runs([(None, run) for run in runs])
    assert row == benchmark_row(benchmark)
    assert list(row) == columns.benchmark_column_names()


def test_a_row_a_run(
    results: Path, runs: list[RunRecord], capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(results, "--per", "run", "--to", "json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert [row["run_id"] for row in rows] == [run.run_id for run in runs]
    assert [list(row) for row in rows] == [columns.run_column_names()] * 3


def test_csv_and_json_say_the_same(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for per in ("run", "benchmark"):
        assert report(results, "--per", per, "--to", "json") == 0
        from_json = json.loads(capsys.readouterr().out)
        assert report(results, "--per", per, "--to", "csv") == 0
        from_csv = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        assert from_csv == [
            {name: "" if value is None else str(value) for name, value in row.items()}
            for row in from_json
        ]


def test_the_table_is_for_people(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert report(results) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    for word in ("fast", "AMD EPYC", "3/3", "35.9 s", "99.46 %", "to 99.4 %", "3 records in"):
        assert word in printed.out
    assert report(results, "--per", "run") == 0
    assert "3/3" not in capsys.readouterr().out


def test_a_run_that_missed_the_target_has_a_dash(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store.save_record(make_record(accuracies=[0.98]), tmp_path)
    assert report(tmp_path, "--per", "run") == 0
    out = capsys.readouterr().out
    [line] = [line for line in out.splitlines() if "missed" in line and "98.00 %" in line]
    assert line.split()[2:5] == ["missed", "–", "–"]
    assert report(tmp_path, "--per", "run", "--to", "json") == 0
    [row] = json.loads(capsys.readouterr().out)
    assert row["status"] == "completed"
    assert row["time_to_target_seconds"] is None
    assert report(tmp_path, "--per", "run", "--to", "csv") == 0
    [cells] = csv.DictReader(io.StringIO(capsys.readouterr().out))
    assert cells["time_to_target_seconds"] == ""


def test_results_are_the_default(
    results: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(results.parent)
    assert report("--to", "json", "--per", "run") == 0
    rows = json.loads(capsys.readouterr().out)
    assert all(row["record_path"].startswith("results/amd-epyc-2-cores/") for row in rows)


def test_alike_runs_that_were_started_one_by_one_are_one_row(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As `sweep` and `ab` start them; another label is another row."""
    for label in ("swept", "other"):
        for seed in range(3):
            (record,) = make_benchmark((6.5,), label=label)
            store.save_record(record.model_copy(update={"seed": seed}), tmp_path)
    assert report(str(tmp_path), "--json") == 0
    rows = json.loads(capsys.readouterr().out)
    assert sorted((row["label"], row["runs"]) for row in rows) == [("other", 3), ("swept", 3)]


def test_what_is_no_record_is_named_and_the_rest_is_printed(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "foreign.json").write_text('{"a": 1}')
    (results / "torn\x1b[31m.json").write_text('{"schema_version": 1, "run')
    assert report(results, "--to", "json") == 0
    printed = capsys.readouterr()
    assert len(json.loads(printed.out)) == 1
    foreign, torn = printed.err.splitlines()
    assert foreign == f"{results}/foreign.json: not a run record: it has no schema_version"
    assert torn.startswith(f"{results}/torn.json: Invalid JSON: Unterminated string")


def test_nothing_to_report_is_bad_input(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # the project's folder may have own records, which the line names
    (tmp_path / "foreign.json").write_text("{}")
    assert report(tmp_path) == 2
    problem, error = capsys.readouterr().err.splitlines()
    assert problem.startswith(f"{tmp_path}/foreign.json: not a run record")
    assert error == (
        f"mnist-bench: error: no run records in {tmp_path}: make some with `mnist-bench run`"
    )


def test_nothing_has_been_run_yet(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert report() == 2
    [error] = capsys.readouterr().err.splitlines()
    assert error.endswith("no run records in results/local: make some with `mnist-bench run`")


def test_without_paths_it_is_this_machines_newest_benchmark(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    started = datetime(2026, 1, 2, tzinfo=UTC)
    for run in make_benchmark((9.4, 9.5), label="theirs"):
        store.save_record(run, Path("results"))
    assert report("--json") == 0
    shown = capsys.readouterr()
    assert [row["label"] for row in json.loads(shown.out)] == ["theirs"]
    assert "no runs of this machine in results/local" in shown.err

    for days, label in enumerate(("older", "newest", "oldest")):
        when = started + timedelta(days=days % 2 - (label == "oldest"))
        for run in make_benchmark((6.4, 6.5), label=label):
            store.save_record(run.model_copy(update={"started_at": when}), Path("results/local"))
            when += timedelta(minutes=1)
    assert report("--json") == 0
    shown = capsys.readouterr()
    assert [row["label"] for row in json.loads(shown.out)] == ["newest"]
    assert shown.err == ""
    assert report("results", "--json") == 0
    assert [row["label"] for row in json.loads(capsys.readouterr().out)] == ["theirs"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["nowhere"], "cannot read nowhere: No such file or directory"),
        (["--per", "week"], "'week' is not one of"),
        (["--to", "excel"], "'excel' is not one of"),
    ],
)
def test_bad_input_is_one_line(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report(*arguments) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [error] = printed.err.splitlines()
    assert complaint in error


@pytest.mark.slow
def test_reading_results_loads_neither_torch_nor_numpy_nor_pandas(results: Path) -> None:
    store.save_record(make_record(label="base"), results)
    script = """
import sys
from bench.cli.report import report
from bench.cli.report import Format, Per
from pathlib import Path
results = Path(sys.argv[1])
for to in set(Format) - {Format.HTML, Format.PARQUET}:
    report(
        [results],
        to=to,
        output=results / "logs" if to is Format.MLLOG else None,
        columns="label" if to is Format.MARKDOWN else None,
        where="runs >= 1",
    )
report([results], baseline="base")
for to in (Format.TERMINAL, Format.JSON, Format.CSV):
    report([results], per=Per.RUN, to=to)
heavy = {"torch", "numpy", "pandas", "accelerate", "torchvision", "scipy", "matplotlib"}
sys.exit(", ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    completed = subprocess.run(
        [sys.executable, "-c", script, str(results)],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (completed.returncode, completed.stderr) == (0, "")


@pytest.mark.slow
def test_a_terminal_with_few_letters_gets_all_it_can_show(results: Path) -> None:
    store.save_record(make_record(accuracies=[0.98], label="größer"), results)
    for to in ("terminal", "json", "csv"):
        completed = subprocess.run(
            [sys.executable, "-m", "bench", "report", str(results), "--to", to],
            cwd=ROOT,
            capture_output=True,
            check=False,
            env={**os.environ, "PYTHONIOENCODING": "ascii"},
        )
        assert (completed.returncode, completed.stderr) == (0, b"")
        assert b"AMD EPYC" in completed.stdout
        # CSV is always UTF-8; the other formats use ASCII only.
        assert (
            ("größer".encode() in completed.stdout) if to == "csv" else completed.stdout.isascii()
        )


# Values that break some readers; most are wrong for any given field.
HOSTILE: list[Any] = [
    *(None, True, 0, -1, 0.5, 5e-324, 1e308, -1e308, 2**63, 10**400, [], [[]], {}, {"name": 1}),
    *("", "\x1b[31m", "=1+1", "x" * 300, "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"),
]


def _places(value: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of keys to every place in a JSON value."""
    if place:
        yield place
    parts = dict(enumerate(value)) if isinstance(value, list) else value
    for key, item in parts.items() if isinstance(parts, dict) else ():
        yield from _places(item, (*place, key))


FULL = store.to_json(make_record(energy=ENERGY, monitoring=MONITORING))
PLACES = list(_places(json.loads(FULL)))


@pytest.mark.slow
@given(changes=st.lists(st.tuples(st.sampled_from(PLACES), st.sampled_from(HOSTILE)), max_size=2))
@settings(max_examples=300)
def test_a_file_is_either_refused_or_printed_in_every_format(
    changes: list[tuple[tuple[Any, ...], Any]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    record = json.loads(FULL)
    for (*before, last), value in changes:
        inside = record
        with contextlib.suppress(LookupError, TypeError):  # the first change removed the place
            for key in before:
                inside = inside[key]
            inside[last] = value
    path = tmp_path_factory.getbasetemp() / "hostile.json"
    path.write_text(json.dumps(record))
    results = store.read_records([path])
    assert len(results.records) + len(results.problems) == 1
    assert all(problem.reason.isprintable() for problem in results.problems)
    read = benchmarks.group_runs(results.records)
    for rows, names in (
        (run_rows(read), run_column_names()),
        (benchmark_rows(read), benchmark_column_names()),
    ):
        assert json.loads(to_json(rows, names)) == rows
        assert to_csv(rows, names)
    Console(file=io.StringIO(), width=80).print(terminal.summary(read))


# --- The two formats


@given(ROWS)
def test_json_holds_every_value_exactly(rows: list[Row]) -> None:
    assert json.loads(to_json(rows, ["b", "a"])) == rows
    assert to_json(rows, ["a", "b"]).isascii()


@given(ROWS)
def test_csv_holds_every_value_and_no_formula(rows: list[Row]) -> None:
    lines = list(csv.reader(io.StringIO(to_csv(rows, ["a", "b"]), newline="")))
    assert lines[0] == ["a", "b"]
    assert len(lines) == 1 + len(rows)
    for row, cells in zip(rows, lines[1:], strict=True):
        for value, cell in zip((row["a"], row["b"]), cells, strict=True):
            if value is None:
                assert cell == ""
            elif isinstance(value, str):
                visible = "".join(
                    c if c.isprintable() or c in "\n\r\t" else " " if c.isspace() else ""
                    for c in value
                )
                assert cell in (visible, "'" + visible)
                assert not cell.startswith(("=", "+", "-", "@", "\t", "\r"))
            else:
                assert type(value)(cell) == value  # to the last digit, minus signs and all
