"""One row a machine and division: which benchmark stands for a machine."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.benchmarks import Benchmark
from bench.analysis.standings import HEADINGS, Standing, reasons_against, standings
from bench.cli import main
from bench.cli.output import print_runs
from bench.launch.result import BenchmarkResult
from bench.records.schema import RunRecord
from mnist_cnn.recipe import FAST
from tests.factories import make_benchmark, saved

CLEAN = {"commit": "a" * 40, "dirty": False}
FIVE = (6.4, 6.5, 6.5, 6.6, 6.7)
TORCH = {"kernels": "torch"}


def official(
    seconds: tuple[float, ...] = FIVE, days: int = 0, device: str = "AMD EPYC", **fields: Any
) -> list[RunRecord]:
    setup = {"device_name": device, "kernels": "avx2", **fields.pop("setup", {})}
    fields["environment"] = CLEAN | fields.pop("environment", {})
    runs = make_benchmark(seconds, setup=setup, **fields)
    later = timedelta(days=days)
    return [run.model_copy(update={"started_at": run.started_at + later}) for run in runs]


def rows(*benchmarks: list[RunRecord]) -> dict[str, list[Standing]]:
    return standings((runs[0].label or "", benchmark(runs)) for runs in benchmarks)


def benchmark(runs: list[RunRecord]) -> Benchmark:
    return Benchmark(tuple((None, run) for run in runs))


def test_the_newest_official_benchmark_stands_for_a_machine() -> None:
    divisions = rows(
        official(label="old"),
        official((9.4, 9.5, 9.5, 9.6, 9.7), days=2, label="newest official"),
        official((1.4, 1.5, 1.6), days=3, label="too few"),
        official((9.4, 9.5, 9.6), division="closed", label="closed"),
    )
    assert list(divisions) == ["open", "closed"]
    assert [row.source for row in divisions["open"]] == ["newest official"]
    assert [row.source for row in divisions["closed"]] == ["closed"], "three are enough there"
    assert all(row.is_official for row in (*divisions["open"], *divisions["closed"]))


def test_the_best_code_stands_for_a_machine_and_torchs_where_there_is_no_other() -> None:
    torchs = official((20.0,) * 5, days=5, label="torch", setup=TORCH)
    assert [row.source for row in rows(torchs, official(label="code"))["open"]] == ["code"]
    assert [row.source for row in rows(torchs)["open"]] == ["torch"]


def test_of_what_is_not_official_an_experiment_does_not_replace_a_whole_benchmark() -> None:
    def dirty(seconds: tuple[float, ...], label: str, **fields: Any) -> list[RunRecord]:
        fields = {"recipe": FAST.values()} | fields
        return official(seconds, label=label, environment={"dirty": True}, **fields)

    short = {"recipe": FAST.values() | {"epochs": 3}}
    benchmarks = (
        dirty(FIVE, "whole"),
        dirty((6.4, 6.5, 6.6), "few runs", days=1),
        dirty(FIVE, "three epochs", days=2, **short),
        dirty(FIVE, "interrupted", days=3, status="interrupted"),
    )
    assert [row.source for row in rows(*benchmarks)["open"]] == ["whole"]
    newer = dirty((*FIVE, 6.8), "newer", days=4)
    assert [row.source for row in rows(*benchmarks, newer)["open"]] == ["newer"]
    assert rows(benchmarks[-1]) == {}, "no row without a completed run"


def test_the_fastest_is_first_and_rows_that_are_not_official_are_below() -> None:
    [table] = rows(
        official((3.0, 3.1, 3.2), device="hasty", label="few"),
        official(device="slow", seconds=tuple(2 * s for s in FIVE), label="slow"),
        official(device="quick", label="quick"),
    ).values()
    assert [row.source for row in table] == ["quick", "slow", "few"]
    assert [row.is_official for row in table] == [True, True, False]
    first, second, _ = (dict(zip(HEADINGS[1:-1], row.values, strict=True)) for row in table)
    assert first["times as long"].value == "1.00"
    of_whole = second["times as long"].value
    assert of_whole.startswith("1.9"), "of the whole time, not of training alone"
    assert first["reached"].value == "5/5"


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (lambda: official((6.4, 6.5)), "2 completed runs of the 5"),
        (lambda: official()[1:], "its seeds are not 0 to n-1"),
        (lambda: official(environment={"commit": None}), "its code is not known"),
        (lambda: official(environment={"dirty": True}), "files differed from the commit"),
        (lambda: official(setup={"parallel_seeds": 2}), "its runs shared the machine"),
        (lambda: official(status="interrupted"), "0 completed runs of the 5"),
    ],
)
def test_what_is_not_official(runs: Any, reason: str) -> None:
    assert any(reason in each for each in reasons_against(benchmark(runs())))


def test_misses_and_scatter_are_no_reason() -> None:
    missed = official(accuracies=[0.98, 0.99])
    wide = official((6.4, 6.5, 6.5, 6.6, 9.7))
    assert not list(reasons_against(benchmark(missed)))
    assert not list(reasons_against(benchmark(wide)))


def test_a_recipe_that_is_another_today_is_marked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where a record is older than one of the recipe's fields."""
    today = FAST.values() | {"memory_format": "contiguous", "pipeline": "loader"}
    older = {name: value for name, value in today.items() if name != "statistics_images"}
    own = today | {"name": "my recipe", "epochs": 3}
    recipes = {"A": today, "B": today | {"epochs": 24}, "C": older, "D": own}
    sides = [
        [
            record.model_copy(update={"recipe": recipe})
            for record in official((6 + number,) * 5, device=device)
        ]
        for number, (device, recipe) in enumerate(recipes.items())
    ]
    assert [row.name for row in rows(*sides)["open"]] == ["A", "B \u2020", "C \u2020", "D"]
    for number, side in enumerate(sides):
        saved(tmp_path / "results" / str(number), side)
    assert main(["report", str(tmp_path / "results")]) == 0
    output = " ".join(capsys.readouterr().out.split())
    assert "B \u2020" in output
    assert "\u2020 trained by other values than its recipe has today" in output


@pytest.mark.parametrize(
    ("count", "options", "is_said"),
    [
        (2, {}, False),  # a warning asks for three first
        (3, {}, True),
        (5, {}, False),
        (3, {"division": "closed"}, False),
        (3, {"protocol": {"target_accuracy": 0.98}}, False),
        (3, {"environment": {"dirty": True}}, False),
    ],
)
def test_a_run_that_could_be_official_says_how_many_runs_that_takes(
    count: int, options: dict[str, Any], is_said: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        run.model_copy(update={"recipe": FAST.values()})
        for run in official(FIVE[:count], **options)
    ]
    print_runs(BenchmarkResult([(None, run) for run in runs]), as_json=False)
    said = "> A machine's row among the results takes 5 runs: --runs 5\n"
    assert capsys.readouterr().out.endswith(said) == is_said


def test_other_targets_have_no_place() -> None:
    assert rows(official(protocol={"target_accuracy": 0.98})) == {}


@pytest.mark.parametrize("columns", ["80", "140"])
def test_report_of_several_machines_is_a_row_each(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    columns: str,
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    folder = saved(tmp_path, official(device="quick"))
    saved(tmp_path, official(device="slow", seconds=(9.4,) * 5))
    saved(tmp_path, official(device="slow", seconds=(9.9,) * 3, days=1))
    assert main(["report", folder]) == 0
    shown = capsys.readouterr()
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= int(columns)
    assert [line.split()[0] for line in lines if line.startswith(("quick", "slow"))] == [
        "quick",
        "slow",
    ]
    assert "all of the 3 benchmarks behind these rows: --per benchmark" in shown.err
    assert main(["report", folder, "--per", "benchmark"]) == 0
    assert "one row a machine" not in capsys.readouterr().out.lower()
