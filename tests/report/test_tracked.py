"""What every tracker receives: one benchmark per name, its measures, what is left out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.records.schema import RunRecord, Status
from bench.report.formats.bencher import to_bmf
from bench.report.formats.measures import measures_of
from bench.report.formats.tracked import pool_benchmarks
from tests.factories import make_benchmark, make_record, records, saved
from tests.report.exports import DOCUMENTS, benchmarks_of, loads, report


@pytest.mark.parametrize("to", DOCUMENTS)
def test_what_is_left_out_is_said(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        *make_benchmark((6.4, 6.5, 6.7)),
        *make_benchmark((6.0,), environment={"commit": "a" * 40}),  # the same name, later
        make_record(status=Status.FAILED, reason="out of memory"),
        make_record(status=Status.INTERRUPTED, reason="stopped"),
        make_record(accuracies=[0.98], label="short"),
    ]
    assert report(to, saved(tmp_path / "r", runs)) == 0
    printed = capsys.readouterr()
    lines = [line.removeprefix(f"mnist-bench: not in {to}: ") for line in printed.err.splitlines()]
    assert lines[0] == "2 runs not completed: 1 failed, 1 interrupted"
    assert lines[1].startswith("1 benchmark (1 run): newer ones, of another commit or set-up, have")
    assert lines[2:] == {
        "pytest-benchmark": [
            "the times to target of 1 run that missed it: there are none (runs and runs_reached in "
            "extra_info count them)"
        ],
        "github-action-bigger": [],
    }.get(to, ["the time to target of 1 benchmark: half of the runs or more missed"])


@pytest.mark.parametrize("to", DOCUMENTS)
def test_nothing_completed_is_no_document(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = make_record(status=Status.FAILED, reason="out of memory")
    assert report(to, saved(tmp_path / "r", [failed])) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == ("mnist-bench: error: nothing to export: 1 run not completed: 1 failed\n")


def test_runs_measured_singly_are_taken_together() -> None:
    """As `ab` makes them: benchmarks of one run, by turns."""
    singly = [
        run
        for seconds, label in ((6.4, "a"), (7.0, "b"), (6.6, "a"), (7.2, "b"))
        for run in make_benchmark((seconds,), label=label)
    ]
    values = loads(to_bmf(benchmarks_of(singly)).text)
    seconds = {
        name.rpartition(" ")[2]: metrics["train-seconds"]["value"]
        for name, metrics in values.items()
    }
    assert seconds == {"(a)": pytest.approx(6 * 6.5), "(b)": pytest.approx(6 * 7.1)}


def test_a_miss_counts_as_longer_and_does_not_vanish() -> None:
    missed = make_benchmark((5.0, 5.1), accuracies=[0.98] * 6)
    runs = [
        *make_benchmark((6.0, 6.5, 7.0, 7.5, 8.0)),
        *(run.model_copy(update={"seed": 5 + index}) for index, run in enumerate(missed)),
    ]
    (benchmark,) = pool_benchmarks(benchmarks_of(runs))
    found = {point.name: point for point in measures_of(benchmark)}
    time = found["time_to_target_seconds"]
    assert time.value == pytest.approx(0.4 + 5 * (7.5 + 0.6))  # the fourth of seven
    cost = found["time_to_target_seconds_expected"]
    assert cost.value > time.value
    assert time.low is not None
    assert time.low < time.value
    assert time.high is None
    assert found["runs_reached_share"].value == 5 / 7
    assert found["train_seconds"].value == pytest.approx(6 * sum((6, 6.5, 7, 7.5, 8, 5, 5.1)) / 7)


@pytest.mark.slow
@given(st.lists(records(), min_size=1, max_size=5))
def test_a_value_lies_within_its_interval(runs: list[RunRecord]) -> None:
    for benchmark in benchmarks_of(runs):
        if not any(run.status is Status.COMPLETED for run in benchmark.records):
            continue
        for point in measures_of(benchmark):
            assert point.low is None or point.low <= point.value
            assert point.high is None or point.value <= point.high
