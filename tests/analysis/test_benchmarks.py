from __future__ import annotations

import statistics
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from bench.analysis import benchmarks, columns
from bench.analysis.benchmarks import group_runs
from bench.analysis.columns import Row
from bench.analysis.metrics import attempt_of, end_seconds
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.rows import benchmark_row, benchmark_rows, run_row, run_rows
from bench.records.schema import RunRecord, Status
from tests.factories import make_benchmark, make_record, records

# As docs and readers know them: this list is written out so that a change of it is seen.
RUN_COLUMNS = """
run_id benchmark_id status reason division recipe device device_name processes machines
parallel_seeds threads precision kernels global_batch_size seed epochs final_accuracy
best_accuracy time_to_target_seconds train_time_to_target_seconds cold_time_to_target_seconds
init_seconds warmup_seconds train_seconds eval_seconds samples_to_target images_per_second
peak_memory_bytes energy_joules host_energy_joules other_work_share first_crossing_seconds label
torch_version
accelerate_version commit machine protocol_version record_path
"""
SHARED_COLUMNS = """
benchmark_id division recipe device device_name processes machines parallel_seeds threads
precision kernels global_batch_size epochs label torch_version accelerate_version commit
machine protocol_version
"""
MEASURED_COLUMNS = """
final_accuracy best_accuracy time_to_target_seconds train_time_to_target_seconds
cold_time_to_target_seconds init_seconds warmup_seconds train_seconds eval_seconds
samples_to_target images_per_second peak_memory_bytes energy_joules host_energy_joules
other_work_share first_crossing_seconds
"""


def test_columns_are_the_contract() -> None:
    assert columns.run_column_names() == RUN_COLUMNS.split()
    parts = ("median", "mean", "low", "high", "iqr", "olympic")
    summaries = [f"{name}_{part}" for name in MEASURED_COLUMNS.split() for part in parts]
    shared = SHARED_COLUMNS.split()
    assert columns.benchmark_column_names() == [
        *(*shared, "runs", "runs_reached", *summaries),
        "runs_reached_share_low",
        "runs_reached_share_high",
        "time_to_target_seconds_median_low",
        "time_to_target_seconds_median_high",
        "time_to_target_seconds_expected",
        "time_to_target_seconds_expected_low",
        "time_to_target_seconds_expected_high",
        "time_to_target_seconds_restricted_mean",
        "time_to_target_seconds_restricted_low",
        "time_to_target_seconds_restricted_high",
        "time_to_target_seconds_restricted_to",
        *(
            f"{name}_median_{end}"
            for name in MEASURED_COLUMNS.split()
            if name != "time_to_target_seconds"  # its ends are above
            for end in ("low", "high")
        ),
    ]


@pytest.mark.slow
@given(st.lists(records(), max_size=4))
def test_every_row_has_every_column_in_order_whatever_the_records(runs: list[RunRecord]) -> None:
    benchmarks = group_runs((Path("x.json"), run) for run in runs)
    for row in run_rows(benchmarks):
        assert list(row) == columns.run_column_names()
    for row in benchmark_rows(benchmarks):
        assert list(row) == columns.benchmark_column_names()
    assert sum(len(benchmark.runs) for benchmark in benchmarks) == len(runs)


def test_a_run_in_a_row() -> None:
    record = make_record(init_seconds=0.5, train_seconds=6.0, eval_seconds=1.0, label="quiet")
    [row] = run_rows(benchmarks.group_runs([(Path("results/m/r.json"), record)]))
    assert row == {
        "run_id": record.run_id,
        "benchmark_id": "b" * 32,
        "status": "completed",
        "reason": None,
        "division": "open",
        "recipe": "fast",
        "device": "cpu",
        "device_name": "AMD EPYC",
        "processes": 1,
        "machines": 1,
        "parallel_seeds": 1,
        "threads": 2,
        "precision": "bf16",
        "kernels": "torch",
        "global_batch_size": 128,
        "seed": 0,
        "epochs": 6,
        "final_accuracy": 0.9946,
        "best_accuracy": 0.9946,
        "time_to_target_seconds": 35.5,
        "train_time_to_target_seconds": 30.0,
        "cold_time_to_target_seconds": 43.0,
        "init_seconds": 0.5,
        "warmup_seconds": 3.0,
        "train_seconds": 36.0,
        "eval_seconds": 6.0,
        "samples_to_target": 300000,
        "images_per_second": 10_000.0,
        "peak_memory_bytes": 812 * 1024**2,
        "energy_joules": None,
        "host_energy_joules": None,
        "other_work_share": pytest.approx(0.0116, abs=1e-4),
        "first_crossing_seconds": 35.5,
        "label": "quiet",
        "torch_version": "2.15.0",
        "accelerate_version": "1.15.0",
        "commit": "0123456789abcdef0123456789abcdef01234567",
        "machine": None,
        "protocol_version": 1,
        "record_path": "results/m/r.json",
    }
    assert type(row["status"]) is str


def test_a_benchmark_in_a_row() -> None:
    row = _row(make_benchmark((6.0, 6.2, 7.0), init_seconds=0.5, eval_seconds=1.0))
    assert (row["recipe"], row["runs"], row["runs_reached"]) == ("fast", 3, 3)
    times = [0.5 + 5 * (train + 1.0) for train in (6.0, 6.2, 7.0)]
    assert row["time_to_target_seconds_median"] == pytest.approx(times[1])
    assert row["time_to_target_seconds_mean"] == pytest.approx(statistics.mean(times))
    half = 4.30265 * statistics.stdev(times) / 3**0.5
    assert row["time_to_target_seconds_low"] == pytest.approx(statistics.mean(times) - half)
    assert row["time_to_target_seconds_high"] == pytest.approx(statistics.mean(times) + half)
    assert row["final_accuracy_median"] == 0.9946


def test_two_runs_make_no_interval() -> None:
    row = _row(make_benchmark((6.0, 6.2)))
    assert row["images_per_second_mean"] is not None
    assert row["images_per_second_low"] is None
    assert row["images_per_second_high"] is None


@pytest.mark.parametrize("status", [Status.INTERRUPTED, Status.DIVERGED, Status.FAILED])
def test_only_completed_runs_are_summed_up_but_all_are_counted(status: Status) -> None:
    good = make_benchmark((6.0, 6.2, 6.4), protocol={"runs": 4})
    bad = make_record(
        benchmark_id=good[0].benchmark_id,
        protocol={"runs": 4},
        run_index=4,
        train_seconds=1.0,
        status=status,
        reason="stopped",
    )
    row, without = _row([*good, bad]), _row(good)
    assert (row["runs"], row["runs_reached"]) == (4, 3)
    assert {**row, "runs": 3} == without


def test_a_median_does_not_hide_the_runs_that_missed() -> None:
    one = _row([*_reaching(2), *_missing(1)])
    assert (one["runs"], one["runs_reached"]) == (3, 2)
    slower = max(_times(_reaching(2)))
    assert one["time_to_target_seconds_median"] == pytest.approx(slower)
    assert one["time_to_target_seconds_mean"] is None
    assert one["time_to_target_seconds_high"] is None
    # What every run has is summed up over every run.
    assert one["final_accuracy_low"] is not None
    assert one["train_seconds_low"] is not None

    half = _row([*_reaching(2), *_missing(2)])
    assert half["runs_reached"] == 2
    for column in ("time_to_target", "train_time_to_target", "cold_time_to_target"):
        assert half[f"{column}_seconds_median"] is None


def test_what_was_not_measured_is_no_miss() -> None:
    runs = make_benchmark((6.0, 6.2, 6.4))
    unknown = runs[0].model_copy(
        update={"peak_memory": runs[0].peak_memory.model_copy(update={"bytes": None})}
    )
    row = _row([unknown, *runs[1:]])
    assert row["peak_memory_bytes_median"] == 812 * 1024**2
    assert row["peak_memory_bytes_low"] is None  # two values


@pytest.mark.parametrize(
    "change",
    [
        {"setup": {"threads": 1}},
        {"setup": {"memory_format": "contiguous"}},
        {"recipe": {"weight_decay": 0.0}},
        {"protocol": {"target_accuracy": 0.99}},
        {"label": "another"},
        {"environment": {"torch": "2.11.0"}},
    ],
)
def test_runs_of_one_id_but_another_setup_are_kept_apart(change: dict[str, Any]) -> None:
    runs = [make_record(), make_record(**change)]
    benchmarks = group_runs([(None, run) for run in runs])
    assert [len(benchmark.runs) for benchmark in benchmarks] == [1, 1]


def test_benchmarks_come_in_the_order_of_time_and_their_runs_too() -> None:
    # One time is without a zone, which two times of one kind could not be sorted with.
    first = make_record(benchmark_id="x", started_at=datetime(2025, 1, 1))
    runs = make_benchmark((6.0, 6.2, 6.4))
    last = make_record(benchmark_id="a", started_at=datetime(2025, 12, 1, tzinfo=UTC))
    benchmarks = group_runs([(None, run) for run in (last, *reversed(runs), first)])
    assert [benchmark.records for benchmark in benchmarks] == [[first], runs, [last]]


def test_paths_are_relative_where_they_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    outside = tmp_path.parent / "elsewhere.json"
    paths = [tmp_path / "results" / "a.json", Path("results/b.json"), outside, None]
    shown = [run_row((path, make_record()))["record_path"] for path in paths]
    assert shown == ["results/a.json", "results/b.json", outside.as_posix(), None]


def test_a_path_that_is_not_utf8_can_still_be_printed() -> None:
    shown = run_row((Path("r\udcff.json"), make_record()))["record_path"]
    assert shown == "r\N{REPLACEMENT CHARACTER}.json"


def test_what_no_format_can_hold_is_absent() -> None:
    row = run_row((None, make_record(seed=2**64, recipe={"name": 7, "epochs": "six"})))
    assert (row["seed"], row["recipe"], row["epochs"]) == (None, None, None)
    short = make_record(train_seconds=5e-324, eval_seconds=0.0)
    assert run_row((None, short))["images_per_second"] is None


def _row(runs: list[RunRecord]) -> Row:
    [benchmark] = benchmarks.group_runs([(None, run) for run in runs])
    return benchmark_row(benchmark)


def _reaching(count: int) -> list[RunRecord]:
    return [make_record(run_index=n, seed=n, train_seconds=6.0 + n) for n in range(1, count + 1)]


def _missing(count: int) -> list[RunRecord]:
    # Faster than all others, as runs that stop learning early may be.
    return [
        make_record(run_index=10 + n, seed=10 + n, accuracies=[0.99] * 6, train_seconds=1.0)
        for n in range(count)
    ]


def _times(runs: list[RunRecord]) -> list[float]:
    rows = [run_row((None, run)) for run in runs]
    return [time for row in rows if isinstance(time := row["time_to_target_seconds"], float)]


def test_runs_that_missed_are_failures_not_dropped() -> None:
    """Seven of eight reach it; the one that missed is in what a success costs."""
    runs = make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5, 6.6, 6.7, 6.8))
    missed = make_record(accuracies=(0.97, 0.98), benchmark_id=runs[0].benchmark_id)
    values = {"evaluations", "target_reached_epoch", "final_accuracy", "epochs", "laps"}
    changes = missed.model_dump(include=values | {"samples_seen"})
    runs[-1] = RunRecord.model_validate(runs[-1].model_dump() | changes)
    row = _row(runs)
    assert row["runs_reached_share_low"] == pytest.approx(0.529, abs=1e-3)
    assert row["runs_reached_share_high"] == pytest.approx(0.978, abs=1e-3)
    trials = [attempt_of(run) for run in runs]
    total = sum(one.seconds for one in trials)
    assert row["time_to_target_seconds_expected"] == pytest.approx(total / 7)
    # Of eight runs, the first and the last: the miss leaves the median without an upper end.
    reached = sorted(one.seconds for one in trials if one.reached)
    assert row["time_to_target_seconds_median_low"] == reached[0]
    assert row["time_to_target_seconds_median_high"] is None
    # A miss counts as the schedule, which ends where the longest run does.
    end = max(end_seconds(run) for run in runs)
    assert row["time_to_target_seconds_restricted_to"] == end
    assert row["time_to_target_seconds_restricted_mean"] == pytest.approx(
        (sum(reached) + end) / len(runs)
    )


def test_a_median_has_a_medians_interval() -> None:
    row = _row(make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5, 6.6, 6.7)))
    assert row["train_seconds_median_low"] == pytest.approx(6 * 6.1)
    assert row["train_seconds_median_high"] == pytest.approx(6 * 6.7)
    five = _row(make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5)))
    assert five["train_seconds_median_low"] is five["train_seconds_median_high"] is None
    assert five["train_seconds_low"] is not None


def test_a_repeated_seed_repeats_a_time_and_no_accuracy() -> None:
    """Six runs of two seeds: six times, two accuracies, no claim about misses (I14)."""
    runs = [
        run.model_copy(update={"seed": index % 2})
        for index, run in enumerate(make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5, 6.6)))
    ]
    (benchmark,) = benchmarks.group_runs((None, run) for run in runs)
    assert benchmark.summary("train_seconds").count == 6
    for column in ("final_accuracy", "best_accuracy", "samples_to_target"):
        summary = benchmark.summary(column)
        assert summary.count == 2
        assert summary.low is summary.high is summary.median_low is summary.median_high is None
    row, alone = benchmark_row(benchmark), _row(runs[:2])
    for end in ("low", "high"):
        assert row[f"runs_reached_share_{end}"] == alone[f"runs_reached_share_{end}"]
        assert row[f"time_to_target_seconds_expected_{end}"] is None
        assert row[f"time_to_target_seconds_restricted_{end}"] is None
    assert row["time_to_target_seconds_expected"] is not None
    assert benchmark.warnings[ResultWarning.REPEATED_SEEDS] == 4


def test_what_a_process_does_once_is_one_measurement() -> None:
    """Six runs of a process share its start-up and warm-up (I21)."""
    runs = make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5, 6.6))
    (benchmark,) = benchmarks.group_runs((None, run) for run in runs)
    warm_up, cold = (
        benchmark.summary(name) for name in ("warmup_seconds", "cold_time_to_target_seconds")
    )
    assert (warm_up.count, warm_up.median, warm_up.mean) == (1, 3.0, 3.0)
    assert cold.count == 6
    for summary in (warm_up, cold):
        assert summary.low is summary.high is summary.median_low is summary.median_high is None
    # Runs that were started one by one measured it each time.
    singly = [run for seconds in (6.1, 6.2, 6.3, 6.4) for run in make_benchmark((seconds,))]
    seeds = [run.model_copy(update={"seed": seed}) for seed, run in enumerate(singly)]
    (pool,) = benchmarks.pool_single_runs(benchmarks.group_runs((None, run) for run in seeds))
    assert pool.summary("warmup_seconds").count == 4
    assert pool.summary("cold_time_to_target_seconds").low is not None


def test_an_attempt_that_was_resumed_is_a_part_of_its_run() -> None:
    started = datetime(2026, 11, 28, tzinfo=UTC)
    attempts = [
        make_record(benchmark_id="one", status="failed", reason="lost", seed=0, run_index=1),
        make_record(benchmark_id="one", resumed=1, seed=0, run_index=1),
        make_record(benchmark_id="one", seed=1, run_index=2),
        make_record(benchmark_id="other", seed=0, run_index=1),
    ]
    runs = [
        (None, record.model_copy(update={"started_at": started.replace(minute=minute)}))
        for minute, record in enumerate(attempts)
    ]
    one, other = group_runs(runs)
    assert [(record.run_index, record.outcome) for record in one.records] == [
        (1, "resumed"),
        (2, "completed"),
    ]
    assert len(other.records) == 1
