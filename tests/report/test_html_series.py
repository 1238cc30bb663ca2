"""Runs sorted into the set-ups of a page."""

from __future__ import annotations

from pathlib import Path

from bench.analysis import benchmarks
from bench.records import store
from bench.report.html.series import COLOUR_COUNT, setup_series
from tests.factories import make_benchmark, make_record
from tests.report.pages import (
    series_of,
)


def test_runs_of_one_set_up_are_pooled_and_those_of_another_folder_are_not(tmp_path: Path) -> None:
    """As `ab` makes them: a benchmark each."""
    singles = [make_record(benchmark_id=f"{n:032}", train_seconds=6.0 + n / 10) for n in range(6)]
    for number, record in enumerate(singles):
        store.save_record(record, tmp_path / ("a" if number < 4 else "b"))
    found = setup_series(benchmarks.group_runs(store.read_records([tmp_path]).records))
    assert [len(one.runs) for one in found] == [4, 2]
    assert [one.number for one in found] == [1, 2]
    assert len(found[0].benchmark.runs) == 4


def test_a_label_a_recipe_or_a_commit_is_another_set_up() -> None:
    runs = [
        *make_benchmark(label="a"),
        *make_benchmark(label="b"),
        *make_benchmark(label="b", recipe={"batch_size": 64}),
        *make_benchmark(label="b", environment={"commit": "f" * 40}),
    ]
    names = [one.full_name for one in series_of(runs)]
    assert len(names) == 4
    assert any("commit fffffff" in name for name in names)


def test_set_ups_are_numbered_from_the_fastest_those_that_missed_last() -> None:
    runs = [
        *make_benchmark((9.0, 9.1, 9.2), label="slow"),
        *make_benchmark(label="missed", accuracies=[0.98]),
        *make_benchmark((5.0, 5.1, 5.2), label="quick"),
    ]
    assert [one.detail for one in series_of(runs)] == ["“quick”", "“slow”", "“missed”"]


def test_of_many_set_ups_a_recipe_on_a_device_has_one_colour() -> None:
    few = series_of([run for n in range(COLOUR_COUNT) for run in make_benchmark(label=f"{n}")])
    assert sorted(one.colour for one in few) == list(range(1, COLOUR_COUNT + 1))
    many = series_of([run for n in range(COLOUR_COUNT + 1) for run in make_benchmark(label=f"{n}")])
    assert {one.colour for one in many} == {1}
    assert {one.colour_group for one in many} == {"fast on AMD EPYC"}


def test_missing_runs_are_not_hidden_by_pooling() -> None:
    part = make_benchmark(protocol={"runs": 5})
    [one] = series_of([*part, *make_benchmark()])
    assert any("some runs of this benchmark are not here" in warning for warning in one.warnings)
