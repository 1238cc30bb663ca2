"""Images a second from commit to commit, and the commits that changed them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.benchmarks import group_runs
from bench.analysis.history import HistoryLine, history_lines
from bench.records.schema import RunRecord
from tests.factories import noisy_runs

MONDAY = datetime(2026, 11, 2, 9, tzinfo=UTC)


def measured(day: int, slower: float = 1.0, **overrides: Any) -> list[RunRecord]:
    """Eight runs of a day's commit, in one session."""
    environment = {"commit": f"{day:02d}" * 20} | overrides.pop("environment", {})
    runs = noisy_runs(day, slower=slower, environment=environment, **overrides)
    return [
        run.model_copy(update={"started_at": MONDAY + timedelta(days=day, minutes=minute)})
        for minute, run in enumerate(runs)
    ]


def lines_of(*sides: list[RunRecord], folder: Path | None = None) -> list[HistoryLine]:
    runs = [(folder and folder / f"{n}.json", run) for side in sides for n, run in enumerate(side)]
    return history_lines(group_runs(runs))


def changes(line: HistoryLine) -> dict[str, float | None]:
    return {
        point.code: None if point.change is None else point.change.value for point in line.points
    }


def test_the_commit_that_slowed_training_down_is_named() -> None:
    (line,) = lines_of(measured(3, 1.25), measured(1), measured(2), measured(4, 1.25))
    assert [point.code for point in line.points] == ["0101010", "0202020", "0303030", "0404040"]
    found = changes(line)
    slowed = found.pop("0303030")
    assert slowed == pytest.approx(1 / 1.25, rel=0.02)
    assert set(found.values()) == {None}
    (point,) = [point for point in line.points if point.change]
    assert point.change is not None
    assert point.change.low is not None
    assert point.change.high is not None
    assert point.change.low < point.change.value < point.change.high < 1


def test_what_sessions_of_a_machine_differ_by_is_no_change() -> None:
    (line,) = lines_of(measured(1), measured(2, 1.05))
    assert changes(line) == {"0101010": None, "0202020": None}


@pytest.mark.parametrize("other", [{"torch": "9.9"}, {"driver": "1"}, {"dirty": True}])
def test_what_may_have_another_cause_is_no_change(other: dict[str, Any]) -> None:
    (line,) = lines_of(measured(1), measured(2, 1.5, environment=other))
    assert changes(line) == {"0101010": None, "0202020": None}


def test_benchmarks_of_a_commit_are_one_point() -> None:
    (line,) = lines_of(measured(1), measured(1), measured(2))
    assert [len(point.benchmark.runs) for point in line.points] == [16, 8]


@pytest.mark.parametrize(
    "overrides",
    [
        {"label": "other"},
        {"setup": {"threads": 1}},
        {"recipe": {"name": "reference"}},
        {"environment": {"commit": None}},
    ],
)
def test_a_line_is_of_one_machine_and_set_up(overrides: dict[str, Any]) -> None:
    one = measured(1)
    commit: dict[str, Any] = {"environment": {"commit": "02" * 20}} | overrides
    other = [
        run.model_copy(update={"started_at": MONDAY + timedelta(days=2)})
        for run in noisy_runs(2, **commit)
    ]
    assert lines_of(one, other) == []


def test_folders_are_not_mixed() -> None:
    runs = [(Path(f"{day}/a.json"), run) for day in (1, 2) for run in measured(day)]
    assert history_lines(group_runs(runs)) == []


def test_runs_that_were_not_completed_make_no_point() -> None:
    assert lines_of(measured(1), measured(2, status="failed", reason="a test")) == []
