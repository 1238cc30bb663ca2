from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.benchmarks import group_runs
from bench.analysis.rows import benchmark_row
from bench.analysis.setup_key import RUN_COUNT_FIELDS, SetupKey
from tests.factories import make_benchmark, make_record


def test_runs_of_one_benchmark_have_one_key() -> None:
    first, *others = (SetupKey.of(run) for run in make_benchmark())
    assert others
    assert all(key == first for key in others)


@pytest.mark.parametrize(
    ("overrides", "field"),
    [
        ({"label": "other"}, "label"),
        ({"benchmark_id": "other"}, "benchmark_id"),
        ({"setup": {"threads": 7}}, "setup.threads"),
        ({"setup": {"environment": {"A": "1"}}}, "setup"),
        ({"recipe": {"name": "fast", "epochs": 3}}, "recipe"),
        ({"environment": {"commit": "f" * 40}}, "environment.commit"),
    ],
)
def test_a_field_that_differs_can_be_ignored(overrides: dict[str, Any], field: str) -> None:
    key, other = SetupKey.of(make_record()), SetupKey.of(make_record(**overrides))
    assert key != other
    of_field, of_others_field = (
        SetupKey.of(record, only=[field]) for record in (make_record(), make_record(**overrides))
    )
    assert of_field != of_others_field
    ignored = (field, "recipe_name")
    assert key.ignoring(*ignored) == other.ignoring(*ignored)


def test_the_order_of_an_object_and_the_number_of_runs_do_not_matter() -> None:
    settings = {"A": "1", "B": "2"}
    one = make_record(setup={"environment": settings}, protocol={"runs": 3})
    other = make_record(
        setup={"environment": dict(reversed(settings.items()))}, protocol={"runs": 5}
    )
    assert SetupKey.of(one) != SetupKey.of(other)
    one_key, other_key = (SetupKey.of(r).ignoring(*RUN_COUNT_FIELDS) for r in (one, other))
    assert one_key == other_key


def test_numbers_differ_from_texts_and_the_folder_counts_if_given() -> None:
    number, text = (
        make_record(recipe={"name": "a", "x": 1}),
        make_record(recipe={"name": "a", "x": "1"}),
    )
    assert SetupKey.of(number) != SetupKey.of(text)
    assert SetupKey.of(number) == SetupKey.of(number, None)
    assert SetupKey.of(number, Path("a/r.json")) != SetupKey.of(number, Path("b/r.json"))


def test_a_summary_is_what_the_row_says() -> None:
    (benchmark,) = group_runs((None, run) for run in make_benchmark())
    row = benchmark_row(benchmark)
    summary = benchmark.summary("time_to_target_seconds")
    assert summary.count == len(benchmark.runs)
    for part in ("median", "mean", "low", "high", "iqr", "olympic"):
        assert row[f"time_to_target_seconds_{part}"] == getattr(summary, part)
    with pytest.raises(KeyError):
        benchmark.summary("label")
