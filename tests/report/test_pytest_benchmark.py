"""pytest-benchmark's format, held against its own command."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.report.formats.pytest_benchmark import round_statistics, to_pytest_benchmark
from tests.factories import make_benchmark
from tests.report.exports import HOSTILE, benchmarks_of, loads, report


def compare(cwd: Path, *arguments: object) -> str:
    """`pytest-benchmark compare` as a user runs it; what it printed."""
    done = subprocess.run(
        [Path(sys.executable).parent / "pytest-benchmark", "compare", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_pytest_benchmark_compares_real_runs(real: Path, tmp_path: Path) -> None:
    earlier = real.with_name("studies") / "xeon-earlier-version"
    for path, name in ((earlier, "base"), (real, "new")):
        assert report("pytest-benchmark", path, "--output", tmp_path / f"{name}.json") == 0
    name = "fast on Intel(R) Xeon(R) Processor, 1 process, 2 threads, bf16 amx"
    printed = compare(tmp_path, "base.json", "new.json", "--columns=median,rounds")
    assert "benchmark 'time_to_target_seconds': " in printed
    line, *_ = re.findall(
        rf"{re.escape(name)} \(new\) +([\d.]+) \(.*?\) +(\d+)\n",
        printed.partition("benchmark 'train_seconds'")[2],
    )
    document = loads((tmp_path / "new.json").read_text())
    (test,) = (
        test for test in document["benchmarks"]
        if (test["group"], test["name"]) == ("train_seconds", name)
    )  # fmt: skip
    assert line == (f"{test['stats']['median']:.4f}", "20")
    assert test["extra_info"]["runs_reached"] == 15
    assert test["extra_info"]["final_accuracy_mean"] == pytest.approx(0.99434)
    # Of one file against another, which pairs tests by their full names.
    between = compare(tmp_path, "base.json", "new.json", "--between=median", "-k", "train_sec")
    assert "base Median  new Median" in between
    # The later state is faster, so its difference has a minus.
    assert re.search(rf"{re.escape(name)} +7\.5515 +5\.7241 +-24\.2%", between)
    compare(tmp_path, "new.json", "--group-by=param:recipe", "--csv=table")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(document["benchmarks"])


def test_what_a_process_does_once_is_one_round() -> None:
    """Its six runs share one start-up and warm-up (I21)."""
    runs = make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5, 6.6))
    document = loads(to_pytest_benchmark(benchmarks_of(runs)).text)
    rounds = {test["group"]: test["stats"]["rounds"] for test in document["benchmarks"]}
    assert rounds["warmup_seconds"] == rounds["cold_time_to_target_seconds"] == 1
    assert rounds["time_to_target_seconds"] == rounds["train_seconds"] == 6
    extra = document["benchmarks"][0]["extra_info"]
    assert extra["time_to_target_seconds_expected"] == pytest.approx(0.4 + 5 * (6.35 + 0.6))


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_statistics_are_pytest_benchmarks(seconds: list[float]) -> None:
    oracle = pytest.importorskip("pytest_benchmark.stats").Stats()
    for value in seconds:
        oracle.update(value)
    expected = oracle.as_dict() | {"iterations": 1}
    found = round_statistics(seconds)
    if found is None:  # as many rounds a second as no float can hold
        assert expected["ops"] == float("inf")
        return
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, str) else pytest.approx(value)), name


@pytest.mark.parametrize("seconds", [[1e308, 1e308], [5e-324], [0.0, 1.7e308, 1.7e308]])
def test_statistics_that_no_json_can_hold_are_left_out(seconds: list[float]) -> None:
    assert round_statistics(seconds) is None


def test_times_that_no_json_can_hold_are_left_out_and_said() -> None:
    runs = make_benchmark((5e-324,), accuracies=[0.995])  # too many a second
    document = to_pytest_benchmark(benchmarks_of(runs))
    groups = [test["group"] for test in loads(document.text)["benchmarks"]]
    assert "time_to_target_seconds" in groups
    assert "train_seconds" not in groups
    assert document.left_out == ("2 kinds of times, too long or short for a number",)


def test_hostile_text_is_inert_in_pytest_benchmarks_table(tmp_path: Path) -> None:
    runs = make_benchmark(label=HOSTILE, setup={"device_name": HOSTILE})
    (tmp_path / "x.json").write_text(to_pytest_benchmark(benchmarks_of(runs)).text)
    printed = compare(tmp_path, "x.json")
    assert "everyone" in printed
    assert "\x1b" not in printed
    assert "\x07" not in printed
