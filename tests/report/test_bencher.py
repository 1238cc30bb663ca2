"""Bencher Metric Format, held against its documented schema."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, RootModel

from bench.analysis import benchmarks
from bench.analysis.rows import benchmark_row
from bench.records import store
from bench.records.schema import RunRecord, Status
from bench.report.formats.bencher import to_bmf
from mnist_cnn.errors import UsageError
from tests.factories import make_record, records
from tests.report.exports import benchmarks_of, loads, report


class Metric(BaseModel):
    """bencher.dev/bmf.json: value is required, both ends are optional, all are numbers.

    The schema would let more through; that we write more is not wanted.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    value: float
    lower_value: float = 0.0
    upper_value: float = 0.0


class Bmf(RootModel[dict[str, dict[str, Metric]]]):
    """A benchmark's name to its measures' slugs to their metrics."""


def test_bmf_is_what_the_rows_say(real: Path, tmp_path: Path) -> None:
    assert report("bmf", real, "--output", tmp_path / "bmf.json") == 0
    text = (tmp_path / "bmf.json").read_text()
    values = Bmf.model_validate_json(text).root
    found = benchmarks.pool_single_runs(benchmarks.group_runs(store.read_records([real]).records))
    assert len(values) == len(found) == 3
    for (name, metrics), benchmark in zip(values.items(), found, strict=True):
        row = benchmark_row(benchmark)
        assert name.startswith(f"{row['recipe']} on {row['device_name']}, ")
        assert row["other_work_share_mean"] is not None
        assert "other-work-share" not in metrics, "no result: a tracker would watch the neighbours"
        assert metrics["final-accuracy"].model_dump() == {
            "value": row["final_accuracy_mean"],
            "lower_value": row["final_accuracy_low"],
            "upper_value": row["final_accuracy_high"],
        }
        if row["time_to_target_seconds_median"] is None:  # no run of one epoch reaches the target
            assert "time-to-target-seconds" not in metrics
            continue
        time = metrics["time-to-target-seconds"]
        assert time.value == row["time_to_target_seconds_median"]
        low = row["time_to_target_seconds_median_low"]
        assert ("lower_value" in time.model_fields_set) == (low is not None)
        assert low is None or time.lower_value == low
        assert all(re.fullmatch(r"[a-z-]{1,64}", measure) for measure in metrics)


@pytest.mark.slow
@given(st.lists(records(), max_size=5))
def test_any_records_are_bmf_or_refused(runs: list[RunRecord]) -> None:
    try:
        text = to_bmf(benchmarks_of(runs)).text
    except UsageError:
        assert not any(run.status is Status.COMPLETED for run in runs)
        return
    values = Bmf.model_validate_json(text).root
    assert values
    # To Bencher that ending mutes the alerts of a benchmark; a name has 1,024 characters at most.
    assert all(len(name) <= 1024 and not name.endswith("-bencher-ignore") for name in values)


def test_no_label_mutes_benchers_alerts() -> None:
    (name,) = loads(to_bmf(benchmarks_of([make_record(label="x-bencher-ignore")])).text)
    assert name.endswith("(x-bencher-ignore)")
