"""`verify` on runs that are left out, or made twice."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from bench.records.schema import RunRecord
from bench.stats.stopping import PILOT
from tests.factories import make_benchmark, saved
from tests.verify.tampering import CLOSED, Values, edit, every, files, put, report_of


@pytest.mark.slow
@pytest.mark.parametrize(("left_out", "says"), [(0, "run 1"), (1, "run 2"), (2, "run 3")])
def test_a_run_left_out_is_missed(
    closed: Path, capsys: pytest.CaptureFixture[str], left_out: int, says: str
) -> None:
    files(closed)[left_out].unlink()
    status, _, found = report_of(closed, capsys)
    assert (status, found) == (1, {"seeds": [f"benchmark {CLOSED}: {says} of 3 is not here"]})


def test_the_last_run_may_be_missing_where_somebody_stopped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = make_benchmark((6.4, 6.5, 6.7))
    stopped = runs[1].model_dump() | {"status": "interrupted", "reason": "ended by SIGINT"}
    saved(tmp_path, [runs[0], RunRecord.model_validate(stopped)])
    _, _, found = report_of(tmp_path, capsys)
    assert "seeds" not in found


@pytest.mark.slow
def test_a_gap_in_runs_that_were_started_one_by_one(
    one_by_one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report_of(one_by_one, capsys)[0] == 0
    files(one_by_one)[3].unlink()
    _, _, found = report_of(one_by_one, capsys)
    assert found["seeds"] == [
        "runs like 0ded0a89, started one by one: seed 3 of 0 to 6 is not here"
    ]


@pytest.mark.slow
def test_a_seed_twice_in_runs_that_were_started_one_by_one(
    one_by_one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def again(values: Values) -> None:
        values["seed"] = 5
        values["command"] += ["--seed", "5"]

    edit(files(one_by_one)[6], again)
    _, _, found = report_of(one_by_one, capsys)
    assert found["seeds"] == [
        "runs like 0ded0a89, started one by one: seed 5 is here more than once"
    ]


@pytest.mark.slow
def test_a_run_that_a_sweep_listed_and_nobody_has(
    one_by_one: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [["--recipe", "fast", "--seed", str(seed)] for seed in range(7)]
    for path, words in zip(files(one_by_one), options, strict=True):
        edit(
            path,
            put(label="swept", command=["run.py", *words, "--label", "swept"]),
        )
    line = {"started_at": "2026-11-27T03:00:00Z", "order_seed": 0, "shard": "1/2", "runs": options}
    (one_by_one / "swept.1-of-2.sweep").write_text(json.dumps(line) + "\n")
    assert "seeds" not in report_of(one_by_one, capsys)[2]
    files(one_by_one)[3].unlink()
    (_, found) = report_of(one_by_one, capsys)[2]["seeds"]
    assert found == "swept.1-of-2.sweep: no record of its run --recipe fast --seed 3"


@pytest.mark.slow
def test_runs_auto_have_as_many_as_that_rule_asks_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    auto = {"half_width": 0.05, "runs": 30}
    alike = make_benchmark((6.5, 6.51, 6.52, 6.5, 6.51), protocol=auto)
    assert len(alike) == PILOT
    folder = Path(saved(tmp_path / "enough", alike))
    assert "seeds" not in report_of(folder, capsys)[2]
    files(next(folder.iterdir()))[-1].unlink()
    _, _, found = report_of(folder, capsys)
    assert found["seeds"][0].endswith("run 5 of 5 is not here")


@pytest.mark.slow
def test_the_seeds_of_older_records_follow_no_rule(
    closed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def later(values: Values) -> None:
        assert values["schema_version"] < 8
        values["seed"] += 5
        values["command"] += ["--seed", "5"]

    every(later)(closed)
    assert "seeds" not in report_of(closed, capsys)[2]


@pytest.mark.parametrize(
    ("kept", "seconds", "says"),
    [
        ((1, 2, 3, 4), (0, 0, 45, 45), []),
        ((1, 2, 3, 4), (0, 0, 45, 30), ["run 4 started before run 2 had ended"]),
        ((1, 3), (0, 30), ["run 3 started before run 1 had ended"]),
    ],
)
def test_runs_at_a_time_overlap_only_with_those_of_other_processes(
    kept: Sequence[int],
    seconds: Sequence[int],
    says: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Each run takes 43.2 s."""
    runs = make_benchmark((6.5, 6.6, 6.7, 6.8), setup={"parallel_seeds": 2})
    started = [
        runs[index - 1].model_copy(
            update={"started_at": runs[0].started_utc + timedelta(seconds=after)}
        )
        for index, after in zip(kept, seconds, strict=True)
    ]
    saved(tmp_path, started)
    found = report_of(tmp_path, capsys)[2].get("seeds", [])
    overlaps = [text.partition(": ")[2] for text in found if "started" in text]
    assert overlaps == says
