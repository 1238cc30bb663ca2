"""Exports, read by the programs for which they are: DuckDB, Polars, GitHub's Markdown."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import duckdb
import polars
import pytest

from bench.records.schema import RunRecord
from tests.factories import make_benchmark, saved
from tests.report.exports import report

pytestmark = pytest.mark.slow

LABEL = 'a | "b", <i>*c*</i> \\ $x$\n= 中'
"""What each of these languages would read as its own."""
SECONDS = (6.25, 6.5, 7.75)


@pytest.fixture
def runs() -> list[RunRecord]:
    return make_benchmark(SECONDS, label=LABEL)


@pytest.mark.parametrize("to", ["csv", "parquet", "json"])
def test_duckdb_and_polars_read_what_was_measured(
    to: str, runs: list[RunRecord], tmp_path: Path
) -> None:
    path = tmp_path / f"runs.{to}"
    results = saved(tmp_path / "results", runs)
    assert report(to, results, "--per", "run", "--output", path) == 0
    connection = duckdb.connect()
    found = connection.sql(f"select seed, label, final_accuracy, train_seconds from '{path}'")
    frame: polars.DataFrame = getattr(polars, f"read_{to}")(path)
    frame = frame.select("seed", "label", "final_accuracy", "train_seconds")
    for rows in (found.fetchall(), frame.rows()):
        assert [row[0] for row in rows] == [0, 1, 2]
        # A record holds what was typed on one line.
        assert {row[1].replace("\n", " ") for row in rows} == {LABEL.replace("\n", " ")}
        assert [row[2] for row in rows] == [run.final_accuracy for run in runs]
        assert [row[3] for row in rows] == pytest.approx([6 * seconds for seconds in SECONDS])


@pytest.mark.skipif(shutil.which("cmark-gfm") is None, reason="no cmark-gfm (Debian's package)")
def test_github_shows_the_markdown_as_a_table(runs: list[RunRecord], tmp_path: Path) -> None:
    path = tmp_path / "runs.md"
    results = saved(tmp_path / "results", runs)
    columns = "seed,label,final_accuracy"
    given = ("--per", "run", "--columns", columns, "--output", path)
    assert report("markdown", results, *given) == 0
    html = subprocess.run(
        ["cmark-gfm", "--extension", "table", path], capture_output=True, text=True, check=True
    ).stdout
    (table,) = ElementTree.fromstring(f"<page>{html}</page>").findall("table")
    header, *rows = [["".join(cell.itertext()) for cell in row] for row in table.iter("tr")]
    assert header == ["seed", "label", "accuracy"]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert {row[1] for row in rows} == {" ".join(LABEL.split())}
    assert {row[2] for row in rows} == {"99.46 %"}
