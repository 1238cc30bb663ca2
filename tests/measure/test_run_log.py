"""What a process leaves in files is read as far as it makes sense: it may die at any moment."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.measure.rank_ends import EndKind, report_end, reported_ends
from bench.measure.request import OutputRequest
from bench.measure.run_log import FileRunLog, read_run_log
from bench.records.schema import RunRecord
from tests.factories import make_record

STRANGE = (
    "5",
    "[]",
    '["over", {}]',
    '["begun", 1]',
    '["over"',
    "[" * 5000,
    '["begun", {"seed": 1e999}]',
)


@pytest.mark.parametrize("line", STRANGE)
def test_a_log_is_read_up_to_the_first_line_that_is_none(line: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = FileRunLog(path, OutputRequest(results_dir=tmp_path), None)
    log.run_begun(make_record())
    whole = path.read_bytes()
    path.write_bytes(whole + line.encode() + b"\n" + whole)
    assert len(read_run_log(path).runs) == 1
    path.write_text(line)
    assert read_run_log(path).runs == []


@pytest.mark.parametrize(
    "content",
    [*STRANGE, '{"rank": 1e999, "kind": 1, "what": "", "at": 0}', '{"rank": 0, "kind": null}'],
)
def test_the_end_of_a_rank_that_makes_no_sense_is_none(content: str, tmp_path: Path) -> None:
    report_end(1, EndKind.CAUSE, "was ended by SIGKILL", tmp_path, at=1.0)
    (tmp_path / "rank-0-CAUSE.end").write_text(content)
    assert [str(end) for end in reported_ends(tmp_path)] == ["rank 1 was ended by SIGKILL"]
    (tmp_path / "rank-0-LEFT.end").write_text(
        json.dumps({"rank": 0, "kind": "3", "what": "left", "at": 0})
    )
    assert [end.rank for end in reported_ends(tmp_path)] == [1, 0]


def test_laps_that_make_no_run_leave_the_runs_beginning(tmp_path: Path) -> None:
    """One bit of a lap's start, and its end is beyond all that can be measured."""
    record = make_record()
    path = tmp_path / "log"
    log = FileRunLog(path, OutputRequest(results_dir=None), None)
    draft = record.model_copy(
        update={
            "laps": [],
            "epochs": [],
            "evaluations": [],
            "samples_seen": 0,
            "final_accuracy": None,
            "target_reached_epoch": None,
        }
    )
    log.run_begun(draft)
    late = record.laps[0].model_copy(update={"start_seconds": 1e39})
    log.lap_over(late, None, None)
    (run,) = read_run_log(path).runs
    ended = run.record_of_the_end("failed", "killed by signal 9")
    assert (ended.status, ended.reason, ended.laps) == ("failed", "killed by signal 9", [])
    assert RunRecord.model_validate(ended.model_dump(mode="json")) == ended
