"""Repeats of a seed: which runs stand for accuracies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from bench.analysis.counting import counted_runs, one_per_process
from bench.analysis.repeats import has_repeated_seeds, one_per_seed
from bench.records import store
from bench.records.schema import RunRecord, Status
from tests.factories import make_record

ROOT = Path(__file__).resolve().parents[2]


def _run(seed: int, **values: Any) -> RunRecord:
    return make_record(seed=seed, **values)


def test_the_first_completed_run_of_each_seed_stands_for_it_in_order() -> None:
    lost = _run(3, status=Status.FAILED, reason="out of memory")
    resumed = _run(3, resumed=1)
    runs = [lost, resumed, _run(7), _run(3), _run(7), _run(1)]
    assert one_per_seed(runs) == [runs[2], runs[3], runs[5]]
    assert has_repeated_seeds(runs)
    assert not has_repeated_seeds(runs[:4])
    assert one_per_seed([]) == []
    assert not has_repeated_seeds([])


def test_a_column_says_which_runs_it_counts() -> None:
    runs = [_run(0), _run(0), _run(1)]
    assert counted_runs("final_accuracy", runs) == [runs[0], runs[2]]
    assert counted_runs("train_seconds", runs) == runs
    assert counted_runs("warmup_seconds", runs) == runs[:1]


def test_every_committed_process_is_counted_once() -> None:
    """Cold starts have a process for each run; the other study has one for each benchmark."""
    for folder, runs_per_process in (("cold-starts", {1}), ("earlier-version", {3, 5, 20})):
        path = ROOT / "results" / "studies" / f"xeon-{folder}"
        records = [record for _, record in store.read_records([path]).records]
        benchmarks: dict[str, list[RunRecord]] = {}
        for record in records:
            benchmarks.setdefault(record.benchmark_id, []).append(record)
        processes = one_per_process(records)
        assert len(processes) == len(benchmarks)
        assert {len(runs) for runs in benchmarks.values()} == runs_per_process
