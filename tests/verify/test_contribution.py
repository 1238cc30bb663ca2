"""What `verify` lists as left to do before a pull request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.records.folders import LOCAL_NAME
from bench.records.schema import RunRecord
from tests.factories import make_benchmark, make_record, saved
from tests.verify.tampering import report_of

TO_BE_ADDED = "of results/README.md to be added"


def steps_of(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The list of what is left to do."""
    _, report, _ = report_of(folder, capsys)
    steps: list[str] = report["pull_request"]
    return steps


def unofficial_rows(folder: Path, capsys: pytest.CaptureFixture[str]) -> list[str]:
    """The lines about rows that would not be official, which come first."""
    steps = steps_of(folder, capsys)
    lines = [step for step in steps if "would not be official" in step]
    assert lines == steps[: len(lines)]
    return lines


def single_run(seed: int) -> RunRecord:
    """A run that was started alone, as those of a sweep."""
    command = ["mnist-bench", "run", "--runs", "1", "--seed", str(seed)]
    return make_record(benchmark_id=f"{seed:032x}", seed=seed, command=command)


@pytest.mark.slow
def test_records_whose_copy_is_published_are_not_to_be_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    local = tmp_path / "results" / LOCAL_NAME
    saved(local, [single_run(seed) for seed in range(3)])
    [own] = local.iterdir()
    publish = ["publish", str(own), "--results-dir", str(local.parent)]
    assert any(f"1 row {TO_BE_ADDED}" in step for step in steps_of(own, capsys))

    assert main(publish) == 0
    for folder in (own, local, local.parent / own.name):
        assert not any(TO_BE_ADDED in step for step in steps_of(folder, capsys)), folder

    saved(local, [single_run(3)])  # a run more in the row, which keeps its id
    assert any(f"1 row {TO_BE_ADDED}" in step for step in steps_of(own, capsys))
    assert main(publish) == 0
    assert not any(TO_BE_ADDED in step for step in steps_of(own, capsys))


@pytest.mark.slow
def test_a_row_published_of_another_folder_is_to_be_added(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    runs = make_benchmark()
    saved(results / LOCAL_NAME, runs)
    saved(results, runs)
    [published] = (path for path in results.iterdir() if path.name != LOCAL_NAME)
    published.rename(results / "other")
    assert main(["publish", "--results-dir", str(results)]) == 0
    assert any(TO_BE_ADDED in step for step in steps_of(results / LOCAL_NAME, capsys))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "lines"),
    [
        (
            {"division": "open"},
            [
                "the open division's row would not be official: 3 completed runs of the 5 that "
                "it takes"
            ],
        ),
        (
            {"division": "closed", "environment": {"commit": None}},
            ["the closed division's row would not be official: its code is not known"],
        ),
        ({"division": "closed"}, []),
    ],
)
def test_a_row_that_would_not_be_official_is_named_with_its_reasons(
    changes: dict[str, Any],
    lines: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    saved(tmp_path, make_benchmark(**changes))
    assert unofficial_rows(tmp_path, capsys) == lines


@pytest.mark.slow
def test_of_several_machines_the_line_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, make_benchmark((1.0, 1.1, 1.2, 1.3, 1.4), setup={"device_name": "A"}))
    saved(tmp_path, make_benchmark(setup={"device_name": "B\x1b[31m"}))
    [line] = unofficial_rows(tmp_path, capsys)
    assert line.startswith("the open division's row of B would not be official: ")
