"""Evidence against a run's times: each kind is warned of, and keeps a result out of rankings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis import load_evidence
from bench.analysis.benchmarks import group_runs
from bench.analysis.result_tables import find_entries, group_into_tables
from bench.analysis.result_warnings import (
    ResultWarning,
    benchmark_warnings,
    ranked,
    run_warnings,
    slow_first_run,
)
from bench.records import store
from bench.report.html.series import setup_series
from bench.report.results_chart import draw_chart
from tests.factories import compared, make_benchmark, make_record, noisy_runs

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        # The factory's run uses 80 core-seconds of 43.2 s on two cores.
        pytest.param({}, None, id="an ordinary run"),
        pytest.param({"elapsed_seconds": 63.2}, ResultWarning.SUSPENDED, id="stopped for 20 s"),
        pytest.param({"elapsed_seconds": 90.0}, ResultWarning.SUSPENDED, id="not even one core"),
        pytest.param(
            {"elapsed_seconds": 63.2, "busy_seconds": 120.0},
            ResultWarning.BUSY_MACHINE,
            id="others explain it",
        ),
        pytest.param({"elapsed_seconds": 63.2, "busy_seconds": None}, None, id="nothing counted"),
        pytest.param(
            {"usable_cores_before": 2, "usable_cores_after": 1},
            ResultWarning.ALLOWANCE_CHANGED,
            id="affinity shrank",
        ),
        pytest.param(
            {"quota_cores_after": 0.04}, ResultWarning.ALLOWANCE_CHANGED, id="quota appeared"
        ),
        pytest.param({"usable_cores_before": 2, "usable_cores_after": 2}, None, id="unchanged"),
        pytest.param({"throttled_seconds": 22.6}, ResultWarning.QUOTA_THROTTLED, id="throttled"),
        pytest.param({"throttled_seconds": 0.1}, None, id="hardly throttled"),
        pytest.param(
            {"own_seconds": 100.0, "busy_seconds": None},
            ResultWarning.IMPOSSIBLE_LOAD,
            id="more than all cores have",
        ),
        pytest.param({"busy_seconds": 60.0}, ResultWarning.IMPOSSIBLE_LOAD, id="busy below own"),
        pytest.param(
            {"own_seconds": None, "busy_seconds": 60.0, "usable_cores_before": 1}
            | {"usable_cores_after": 1},
            ResultWarning.IMPOSSIBLE_LOAD,
            id="busier than its cores",
        ),
    ],
)
def test_evidence_is_warned_of(load: dict[str, Any], expected: ResultWarning | None) -> None:
    assert run_warnings(make_record(load=load)) == ([] if expected is None else [expected])


def test_no_committed_record_is_accused() -> None:
    """They were looked at when they were made."""
    for path, record in store.read_records([ROOT / "results"]).records:
        assert not load_evidence.suspended(record), path
        assert not load_evidence.impossible_load(record), path


def test_many_threads_that_wait_for_each_other_are_not_suspended() -> None:
    record = make_record(
        load={"own_seconds": 600.0, "busy_seconds": 610.0},
        setup={"threads": 64},
        environment={"usable_cores": 64, "logical_cores": 64},
    )
    assert run_warnings(record) == []


def test_on_a_gpu_and_on_several_machines_cpu_time_says_nothing() -> None:
    stopped = {"elapsed_seconds": 90.0}
    assert run_warnings(make_record(load=stopped, setup={"device": "cuda"})) == []
    several = {"processes": 2, "machines": 2}
    assert run_warnings(make_record(load=stopped, setup=several)) == []


def test_a_doubtful_benchmark_stands_below_the_others(tmp_path: Path) -> None:
    sound = make_benchmark((6.4, 6.5, 6.7))
    fast = make_benchmark((3.4, 3.5, 3.7), load={"throttled_seconds": 5.0})
    assert (ranked(sound), ranked(fast)) == (True, False)
    runs = [(tmp_path / f"{record.run_id}.json", record) for record in (*fast, *sound)]
    (rows,) = group_into_tables(find_entries(runs, tmp_path)).values()
    assert [row.id for row in rows] == [sound[0].benchmark_id[:8], fast[0].benchmark_id[:8]]
    assert ResultWarning.QUOTA_THROTTLED in rows[1].benchmark.warnings


def test_it_stands_below_the_others_in_the_chart_and_on_the_page_too(tmp_path: Path) -> None:
    sound = make_benchmark((6.4, 6.5, 6.7), setup={"threads": 1})
    fast = make_benchmark((3.4, 3.5, 3.7), load={"throttled_seconds": 5.0})
    runs = [(tmp_path / f"{record.run_id}.json", record) for record in (*fast, *sound)]
    chart = draw_chart(find_entries(runs, tmp_path))
    assert chart.index(sound[0].benchmark_id[:8]) < chart.index(fast[0].benchmark_id[:8])
    series = setup_series(group_runs(runs))
    assert [each.ranked for each in series] == [True, False]


def test_compare_says_it() -> None:
    stopped = {"elapsed_seconds": 63.2}
    remarks = compared(noisy_runs(0), noisy_runs(1, load=stopped)).case.remarks
    assert f"new, 8 runs: {ResultWarning.SUSPENDED}" in remarks


# The order of the runs


@pytest.mark.parametrize(
    ("seconds", "is_slow"),
    [
        ((0.341, 0.253, 0.255, 0.254), True),
        ((0.341, 0.253, 0.321, 0.255, 0.256, 0.254, 0.255, 0.257, 0.253, 0.255), True),
        ((0.267, 0.253, 0.255, 0.254), False),  # 5 %
        ((0.341, 0.253, 0.31, 0.254), False),  # the others scatter as much
        ((0.253, 0.341, 0.255, 0.254), False),
        ((0.341, 0.253, 0.255), False),  # too few to know
    ],
)
def test_a_slow_first_run_is_named(seconds: tuple[float, ...], is_slow: bool) -> None:
    runs = make_benchmark(seconds)
    assert slow_first_run(runs) is is_slow
    assert (ResultWarning.SLOW_FIRST_RUN in benchmark_warnings(runs)) is is_slow


def test_runs_of_processes_of_their_own_have_no_first() -> None:
    assert not slow_first_run(make_benchmark((0.341, 0.253, 0.255, 0.254), protocol={"runs": 1}))


def test_the_first_run_on_the_gpu_of_the_results_is_named() -> None:
    folder = ROOT / "results" / "nvidia-h200-16-cores"
    records = [record for _, record in store.read_records([folder]).records]
    of_forty = [record for record in records if record.protocol.runs == 40]
    of_forty.sort(key=lambda record: record.run_index)
    assert ResultWarning.SLOW_FIRST_RUN in benchmark_warnings(of_forty)


def test_runs_that_resemble_the_ones_before_are_named() -> None:
    waves = [6.5 + 0.2 * (number // 5 % 2) + 0.01 * (number % 3) for number in range(30)]
    assert ResultWarning.AUTOCORRELATED in benchmark_warnings(make_benchmark(waves))
    assert ResultWarning.AUTOCORRELATED not in benchmark_warnings(noisy_runs(0, count=30))
