"""Tables for other programs: Markdown, CSV and Parquet files, and the DataFrame of `bench.load`."""

from __future__ import annotations

import csv
import io
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas
import pytest
from hypothesis import given, settings, strategies as st
from markdown_it import MarkdownIt
from pyarrow import parquet

import bench
from bench.analysis import benchmarks, columns
from bench.analysis.headings import heading_of, unit_of
from bench.analysis.relative_speed import COLUMNS as RELATIVE
from bench.analysis.rows import benchmark_rows, run_rows
from bench.analysis.table import RowTable, sort_and_group
from bench.cli import main
from bench.records import store
from bench.report import terminal
from bench.report.formats.csv import to_csv
from bench.report.formats.json import to_json
from bench.report.formats.markdown import to_markdown
from bench.report.formats.parquet import to_parquet
from bench.report.terminal import console_for
from bench.text import printable
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import printable_lines
from tests.factories import make_benchmark, make_record, records, saved

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).resolve().parents[1] / "golden"
HOSTILE = (
    "<script>alert(1)</script> | a\\| `b` ``c``\n# [bold]d[/bold] \x1b[31me @all "
    "https://example.org ![i](j) \u202e"
)


@pytest.fixture
def results(tmp_path: Path) -> Path:
    folder = tmp_path / "results"
    ids = iter(range(1, 100))
    for label, label_seconds in (("before", (6.4, 6.5, 6.7)), (HOSTILE, (3.4, 3.5))):
        for run in make_benchmark(label_seconds, label=label):
            fixed = {"run_id": f"{next(ids):08x}{0:024x}", "benchmark_id": f"{len(label):032x}"}
            saved(folder, [run.model_copy(update=fixed)])
    missed = make_record(accuracies=[0.98], run_id="f" * 32, benchmark_id="f" * 32, label="=cmd()")
    saved(folder, [missed])
    return folder


# --- Files as they were once found good: pytest --renew-golden, then read the difference


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("benchmarks.md", ["--to", "markdown"]),
        ("grouped.md", ["--to", "markdown", "--group-by", "label", "--baseline", "before"]),
        ("runs.md", ["--to", "markdown", "--per", "run", "--price-per-hour", "2.49 EUR"]),
        ("benchmarks.csv", ["--to", "csv"]),
        ("runs.csv", ["--to", "csv", "--per", "run"]),
    ],
)
def test_golden(
    name: str,
    words: list[str],
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    check_golden: Callable[[Path, bytes], None],
) -> None:
    monkeypatch.chdir(tmp_path)  # the rows name their records
    assert main(["report", "results", *words, "--output", "out"]) == 0
    check_golden(GOLDEN / name, (tmp_path / "out").read_bytes())


def test_what_is_measured_once_is_no_sample_in_any_table(tmp_path: Path) -> None:
    """Warm-up seconds of a process with six runs: one measurement, so no interval (I21)."""
    runs = make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5, 6.6))
    folder = saved(tmp_path / "results", runs)
    ends = ("low", "high", "iqr", "olympic", "median_low", "median_high")
    files = {}
    for to in ("csv", "parquet", "json"):
        files[to] = tmp_path / f"out.{to}"
        assert main(["report", folder, "--to", to, "--output", str(files[to])]) == 0
    [from_csv] = csv.DictReader(io.StringIO(files["csv"].read_text()))
    [from_parquet] = parquet.read_table(files["parquet"]).to_pylist()
    [from_json] = json.loads(files["json"].read_text())
    frame = bench.load(folder, per="benchmark").iloc[0]
    for row in (from_csv, from_parquet, from_json, frame.to_dict()):
        assert float(row["warmup_seconds_median"]) == 3.0
        for end in ends:
            assert row[f"warmup_seconds_{end}"] in ("", None) or pandas.isna(
                row[f"warmup_seconds_{end}"]
            )
        assert float(row["train_seconds_median_low"]) == pytest.approx(36.6)


def test_the_ends_in_a_table_are_rounded_outwards(tmp_path: Path) -> None:
    runs = make_benchmark((6.111, 6.2, 6.3, 6.4, 6.5, 6.666))
    names = "train_seconds_median_low,train_seconds_median,train_seconds_median_high"
    words = ["--to", "markdown", "--columns", names, "--output", str(tmp_path / "out.md")]
    assert main(["report", saved(tmp_path / "results", runs), *words]) == 0
    assert (tmp_path / "out.md").read_text().splitlines()[-1] == "| 36.6 s | 38.1 s | 40.0 s |"


def test_what_markdown_does_not_hold_is_said(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", str(results), "--to", "markdown"]) == 0
    printed = capsys.readouterr()
    shown = printed.out.splitlines()[0].count("|") - 1
    left = len(columns.benchmark_column_names()) - shown
    assert printed.err == (
        f"mnist-bench: not in markdown: {left} columns; choose columns with --columns\n"
    )
    assert main(["report", str(results), "--to", "markdown", "--columns", "label"]) == 0
    assert capsys.readouterr().err == ""


# --- What records say is text everywhere


def _cells(markdown: str) -> list[list[str]]:
    """What a reader of Markdown sees in each cell of a body's row; asserts that all is inert."""
    tokens = MarkdownIt("commonmark").enable("table").parse(markdown)
    found: list[list[str]] = []
    for token in tokens:
        assert token.type.split("_")[0] in {"table", "thead", "tbody", "tr", "th", "td", "inline"}
        if token.type == "tr_open":
            found.append([])
        if token.type == "inline":
            assert {child.type for child in token.children or []} <= {"text", "code_inline"}
            found[-1].append("".join(child.content for child in token.children or []))
    return found[1:]


TEXTS = st.text() | st.sampled_from(
    [HOSTILE, "<script>", "a|b", "a\nb", "[bold]x", "\x1b[31mred", "=cmd()", "`", "\\", "\\|", ""]
)


@pytest.mark.slow
@given(label=TEXTS, device=TEXTS, reason=TEXTS, more=st.lists(records(), max_size=1))
@settings(max_examples=150)
def test_what_a_record_says_is_inert_in_every_table(
    label: str, device: str, reason: str, more: list[Any]
) -> None:
    run = make_record(label=label, reason=reason, setup={"device_name": device})
    read = benchmarks.group_runs((None, record) for record in [run, *more])
    rows, names = run_rows(read), columns.run_column_names()
    table = sort_and_group(RowTable(rows, names), sort="-label", group_by=None)
    cells = _cells(to_markdown(table))
    assert [len(row) for row in cells] == [len(names)] * len(rows)
    for row, shown in zip(table.rows, cells, strict=True):
        for name in ("label", "device_name", "reason"):
            text = row[name]
            expected = "–" if text is None else printable(str(text))
            found = shown[names.index(name)]
            assert "".join(found.split()) == "".join(expected.split())
    assert to_json(rows, names).isascii()
    for line in csv.reader(io.StringIO(to_csv(rows, names), newline="")):
        assert not any(cell.startswith(("=", "+", "@", "\t", "\r")) for cell in line)
    stored = parquet.read_table(io.BytesIO(to_parquet(rows, names)))
    texts = [cell for row in stored.to_pylist() for cell in row.values() if isinstance(cell, str)]
    assert not set("\x1b\x07\u202e") & set("".join(texts))
    assert stored.num_rows == len(rows)
    stream = io.StringIO()
    console_for(stream).print(terminal.rows(RowTable(rows, names, "label"), read))
    assert all(line.isprintable() for line in stream.getvalue().split("\n"))


def test_every_column_that_a_row_may_have_has_a_unit_and_a_heading_of_its_own() -> None:
    priced = ["price_per_hour", "currency", "cost_to_target", "cost_to_target_expected"]
    for names in (columns.run_column_names(), columns.benchmark_column_names()):
        every = [*names, *priced, *RELATIVE]
        assert len({heading_of(name) for name in every}) == len(every)
        assert all(unit_of(name) for name in every)


# --- Parquet and pandas


def test_parquet_holds_what_json_does_with_types_and_units(results: Path, tmp_path: Path) -> None:
    path = tmp_path / "runs.parquet"
    assert (
        main(["report", str(results), "--per", "run", "--to", "parquet", "--output", str(path)])
        == 0
    )
    table = parquet.read_table(path)
    expected = run_rows(benchmarks.group_runs(store.read_records([results]).records))
    shown = [
        {key: printable_lines(cell) if isinstance(cell, str) else cell for key, cell in row.items()}
        for row in expected
    ]
    assert table.to_pylist() == shown
    assert shown != expected, "a terminal would obey what a record says"
    assert str(table.schema.field("seed").type) == "int64"
    assert str(table.schema.field("time_to_target_seconds").type) == "double"
    assert table.schema.field("time_to_target_seconds").metadata == {b"unit": b"seconds"}


def test_without_pyarrow_parquet_is_one_line(
    results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    path = tmp_path / "x.parquet"
    assert main(["report", str(results), "--to", "parquet", "--output", str(path)]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.endswith("pip install pyarrow, or take --to csv")
    assert not path.exists()


@pytest.mark.parametrize("per", ["run", "benchmark"])
def test_load_is_a_typed_table(per: Any, results: Path) -> None:
    table = bench.load(results, per=per)
    read = benchmarks.group_runs(store.read_records([results]).records)
    rows = run_rows(read) if per == "run" else benchmark_rows(read)
    assert list(table.columns) == list(rows[0])
    assert {str(dtype) for dtype in table.dtypes} == {"string", "Int64", "Float64"}
    for name in table.columns:
        values = [None if value is pandas.NA else value for value in table[name]]
        assert values == [row[name] for row in rows]
    assert table.attrs["problems"] == []
    assert table.attrs["units"].keys() == set(table.columns)


def test_the_notebooks_code_runs(
    results: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    with zipfile.ZipFile("mailed.zip", "w") as mailed:
        mailed.writestr("a.json", store.to_json(make_record()))
    _, code = re.findall(
        r"```python\n(.*?)```", (ROOT / "docs/notebooks.md").read_text(encoding="utf-8"), re.DOTALL
    )
    names: dict[str, Any] = {}
    exec(code, names)
    assert len(names["table"]) == 3
    assert len(names["runs"]) == 7


def test_load_says_what_it_could_not_read(results: Path) -> None:
    (results / "torn.json").write_text("{")
    with pytest.warns(UserWarning, match=r"^1 file not among the rows, .*torn\.json: ") as caught:
        table = bench.load(str(results))
    assert Path(caught[0].filename) == Path(__file__)
    assert len(table) == 3
    assert len(table.attrs["problems"]) == 1
    with pytest.raises(UsageError, match="did you mean 'run'"):
        bench.load(results, per="runs")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="cannot read"):
        bench.load(results / "nowhere")


def test_importing_bench_loads_nothing() -> None:
    script = (
        "import sys; before = set(sys.modules); import bench; bench.load\n"
        "print(*sorted({n.partition('.')[0] for n in set(sys.modules) - before}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert set(printed.stdout.split()) - sys.stdlib_module_names == {"bench"}
