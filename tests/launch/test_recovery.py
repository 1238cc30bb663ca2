"""What is saved after the process that measured has died; tests/faults does it with real ones."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench.launch import recovery, unsaved
from bench.launch.guard import Ending
from bench.launch.recovery import cause_of, recover
from bench.measure.guard_folder import (
    VARIABLE,
    enter_folder,
    fill_folder,
    note_begun,
    note_writer,
)
from bench.measure.rank_ends import RANKS_NAME, EndKind, report_end, reported_ends
from bench.measure.request import OutputRequest
from bench.measure.run_log import FileRunLog, log_path, open_run_log
from bench.measure.seed_share import SeedShare
from bench.records.schema import LapKind, RunRecord, Status
from bench.records.store import read_records, save_record
from mnist_cnn.rank import VARIABLES, Rank
from tests.factories import make_record

pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")


@pytest.fixture
def ending(tmp_path: Path) -> Ending:
    """A process that was killed in its only run."""
    folder = tmp_path / "guard"
    folder.mkdir()
    log = FileRunLog(log_path(folder), OutputRequest(results_dir=tmp_path / "results"), None)
    log.run_begun(make_record())
    return Ending(
        folder=folder,
        code=-signal.SIGKILL,
        asked="",
        is_done=False,
        memory_ran_out=False,
        at=time.monotonic(),
    )


def test_the_run_has_its_record_and_one_line_says_what_ended_it(
    ending: Ending, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert recovery.recover(ending).status == 1
    ((_, record),) = read_records([tmp_path / "results"]).records
    assert (record.status, record.reason) == (
        Status.FAILED,
        "the process was ended by SIGKILL",
    )
    assert capsys.readouterr().err == "mnist-bench: error: the process was ended by SIGKILL\n"


def test_a_folder_that_does_not_answer_is_given_up_and_the_record_kept_elsewhere(
    ending: Ending,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(recovery, "FILE_SECONDS", 0.2)
    # In place of a disk that hangs: this pipe has no other end.
    monkeypatch.setattr(recovery, "write_new_file", lambda *_: os.read(os.pipe()[0], 1))
    before = signal.getsignal(signal.SIGALRM)
    assert recovery.recover(ending).status == 1
    assert signal.getsignal(signal.SIGALRM) == before
    assert len(read_records([tmp_path / "state"]).records) == 1
    said = capsys.readouterr().err
    assert "no answer within 0.2 s; see whether its disk or server answers; it is kept as" in said


def test_a_fallback_that_does_not_answer_either_ends_too(
    ending: Ending,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The home folder is on the same server: at last the record is printed."""

    def hang(*_: object) -> None:
        os.read(os.pipe()[0], 1)

    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(recovery, "FILE_SECONDS", 0.2)
    monkeypatch.setattr(recovery, "FALLBACK_SECONDS", 0.2)
    monkeypatch.setattr(recovery, "write_new_file", hang)
    monkeypatch.setattr(unsaved, "save_record", hang)
    assert recovery.recover(ending).status == 1
    problem, line, cause = capsys.readouterr().err.splitlines()
    assert "then save the next line as" in problem
    assert RunRecord.model_validate_json(line).reason == "the process was ended by SIGKILL"
    assert cause == "mnist-bench: error: the process was ended by SIGKILL"


@pytest.mark.parametrize(
    ("has_ranks", "who"), [(False, "the process"), (True, "the supervisor of the ranks")]
)
def test_a_process_that_was_stopped_for_too_long_is_named(
    has_ranks: bool, who: str, ending: Ending, tmp_path: Path
) -> None:
    if has_ranks:
        (ending.folder / RANKS_NAME).touch()
    assert recovery.recover(replace(ending, was_stopped=True)).status == 1
    ((_, record),) = read_records([tmp_path / "results"]).records
    assert record.reason == f"{who} was stopped (SIGSTOP) and did not answer"


# --- What the log holds


@pytest.fixture(autouse=True)
def guardian(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's guardian."""
    folder = tmp_path / "guardian"
    folder.mkdir()
    fill_folder(folder)
    monkeypatch.setenv(VARIABLE, str(folder))
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


def ended(
    guardian: Path, code: int = -9, asked: str = "", *, done: bool = False, no_memory: bool = False
) -> Ending:
    return Ending(
        folder=guardian, code=code, asked=asked, is_done=done, memory_ran_out=no_memory, at=1.0
    )


def become_rank_1(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of two that torchrun has started."""
    addresses = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500", "TORCHELASTIC_RUN_ID": "none"}
    rank = Rank(index=1, local_index=1, world_size=2, local_world_size=2)
    for name, value in (rank.variables() | addresses).items():
        monkeypatch.setenv(name, value)


def draft(run_index: int = 1) -> RunRecord:
    """A run of which nothing is measured but the laps before it."""
    laps = [
        {"kind": "startup", "epoch": None, "start_seconds": -8.0, "seconds": 5.0},
        {"kind": "warmup", "epoch": None, "start_seconds": -3.0, "seconds": 3.0},
    ]
    return make_record(
        accuracies=(), laps=laps, run_index=run_index, load={"elapsed_seconds": 0.0}, seed=0
    )


def log_epochs(log: FileRunLog, whole: RunRecord, epochs: int) -> None:
    """Log a run's laps up to the evaluation of this epoch."""
    trained = {epoch.epoch: epoch for epoch in whole.epochs}
    evaluated = {evaluation.epoch: evaluation for evaluation in whole.evaluations}
    for lap in whole.laps:
        if lap.kind is LapKind.INIT:
            log.lap_over(lap)
        elif lap.epoch is not None and lap.epoch <= epochs:
            if lap.kind is LapKind.TRAIN:
                log.lap_over(lap, epoch=trained[lap.epoch])
            elif lap.kind is LapKind.EVAL:
                log.lap_over(lap, evaluation=evaluated[lap.epoch])


def begun_log(results: Path | None, epochs: int = 0, share: SeedShare | None = None) -> FileRunLog:
    """The log of a process that is in its first run, after so many epochs."""
    log = open_run_log(OutputRequest(results_dir=results), share)
    assert log is not None
    note_begun()
    log.run_begun(draft())
    log_epochs(log, make_record(), epochs)
    return log


def test_a_run_that_was_killed_leaves_what_it_had_measured(
    guardian: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun_log(results, epochs=5)
    recovery = recover(ended(guardian))
    assert recovery.status == 1
    ((path, record),) = read_records([results]).records
    assert recovery.result.runs == [(path, record)]
    whole = make_record()
    assert (record.status, record.reason) == (Status.FAILED, "the process was ended by SIGKILL")
    assert record.evaluations == whole.evaluations[:5]
    assert record.epochs == whole.epochs[:5]
    assert record.samples_seen == 5 * 60_000
    assert record.target_reached_epoch == 5
    assert record.final_accuracy == 0.9941
    own = [lap for lap in record.laps if lap.start_seconds >= 0]
    assert [lap.kind for lap in record.laps[:2]] == [LapKind.STARTUP, LapKind.WARMUP]
    assert record.load.elapsed_seconds == own[-1].start_seconds + own[-1].seconds
    said = capsys.readouterr().err
    assert said == "mnist-bench: error: the process was ended by SIGKILL\n"


def test_a_run_that_was_killed_at_once_leaves_a_record_without_a_measurement(
    guardian: Path, results: Path
) -> None:
    begun_log(results)
    recover(ended(guardian))
    ((_, record),) = read_records([results]).records
    assert record.status is Status.FAILED
    assert record.load.elapsed_seconds == 0.4  # the start of the run
    assert record.final_accuracy is None
    assert record.samples_seen == 0


def test_the_record_that_the_process_made_is_saved_as_it_is(guardian: Path, results: Path) -> None:
    log = begun_log(results, epochs=6)
    record = make_record()
    log.run_over(record)
    assert recover(ended(guardian)).status == 1
    assert [found for _, found in read_records([results]).records] == [record]


def test_a_record_is_not_saved_twice(guardian: Path, results: Path) -> None:
    log = begun_log(results, epochs=6)
    record = make_record()
    log.run_over(record)
    path = save_record(record, results)  # and the process died before it could write that down
    recovery = recover(ended(guardian))
    assert recovery.result.runs == [(path, record)]
    assert not read_records([results]).problems


def test_runs_that_are_saved_already_are_shown_with_the_one_that_was_ended(
    guardian: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = begun_log(results, epochs=6)
    first = make_record()
    log.run_over(first)
    log.record_kept()
    log.run_begun(draft(run_index=2))
    recovery = recover(ended(guardian, code=-2, asked="ended by SIGINT"))
    assert recovery.status == 130
    assert [record.status for record in recovery.result.records] == ["completed", "interrupted"]
    ((_, saved),) = read_records([results]).records
    assert (saved.run_index, saved.reason) == (2, "ended by SIGINT")
    assert capsys.readouterr().err == ""


def test_where_nothing_is_to_be_saved_the_runs_are_shown(guardian: Path, results: Path) -> None:
    log = open_run_log(OutputRequest(results_dir=None, as_json=True), None)
    assert log is not None
    log.run_begun(draft())
    recovery = recover(ended(guardian))
    assert recovery.as_json
    assert [path for path, _ in recovery.result.runs] == [None]
    assert not results.exists()


def test_a_process_of_parallel_seeds_leaves_its_records_to_its_parent(
    guardian: Path, results: Path, tmp_path: Path
) -> None:
    """Which shows them."""
    share = SeedShare(
        index=0,
        count=2,
        benchmark_id="b" * 32,
        threads=1,
        visible=None,
        records=str(tmp_path / "share"),
    )
    begun_log(results, share=share)
    recovery = recover(ended(guardian))
    assert recovery.status == 1
    assert recovery.result.runs == []
    for folder in (results, tmp_path / "share"):
        assert [record.status for _, record in read_records([folder]).records] == ["failed"]


def test_runs_that_were_printed_are_not_printed_again(guardian: Path, results: Path) -> None:
    log = begun_log(results)
    log.runs_printed()
    recovery = recover(ended(guardian))
    assert (recovery.status, recovery.result.runs) == (1, [])
    assert len(read_records([results]).records) == 1


def test_where_all_is_saved_and_printed_the_end_alone_is_told(
    guardian: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log = begun_log(results, epochs=6)
    log.run_over(make_record())
    log.record_kept()
    log.runs_printed()
    recovery = recover(ended(guardian, code=-11))
    assert (recovery.status, recovery.result.runs) == (1, [])
    assert not results.exists()
    said = capsys.readouterr().err
    assert said == "mnist-bench: error: the process was ended by SIGSEGV\n"


@pytest.mark.parametrize(
    ("code", "asked", "done", "status", "said"),
    [
        (3, "", True, 3, ""),
        (0, "", True, 0, ""),
        (0, "", False, 1, "the process ended with status 0 and without a word, before the first"),
        (-9, "", False, 1, "the process was ended by SIGKILL, before the first run"),
        (-9, "", True, 1, "the process was ended by SIGKILL, before the first run"),
        (-9, "ended by SIGINT", False, 130, "interrupted while no run was being measured"),
        (1, "ended by SIGINT", True, 1, ""),
        (130, "", True, 130, "interrupted while no run was being measured"),
        (2, "", False, 2, ""),
    ],
)
def test_the_end_before_the_first_run(
    code: int,
    asked: str,
    done: bool,
    status: int,
    said: str,
    guardian: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert recover(ended(guardian, code, asked, done=done)).status == status
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == (1 if said else 0)


@pytest.mark.parametrize("has_begun", [False, True])
def test_a_terminal_has_its_cursor_again(
    has_begun: bool,
    guardian: Path,
    results: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The progress display of the dead process has hidden it."""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    if has_begun:
        begun_log(results)
    recover(ended(guardian))
    assert capsys.readouterr().err.startswith("\x1b[?25hmnist-bench: error: ")


def test_an_interruption_in_a_run_was_said_already(
    guardian: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    note_begun()
    assert recover(ended(guardian, 130)).status == 130
    assert capsys.readouterr().err == ""


def test_the_rank_that_ended_first_is_the_cause(guardian: Path) -> None:
    (guardian / RANKS_NAME).touch()
    report_end(0, EndKind.LEFT, "ended with status 1", at=1.0)
    assert cause_of(ended(guardian, 1)) == "rank 0 ended with status 1"
    report_end(1, EndKind.CAUSE, "was ended by SIGKILL", at=2.0)
    assert cause_of(ended(guardian, 1)) == "rank 1 was ended by SIGKILL"
    # A supervisor that is killed after that is no cause.
    assert cause_of(ended(guardian, -15)) == "rank 1 was ended by SIGKILL"
    memory = cause_of(ended(guardian, 1, no_memory=True))
    assert memory == "rank 1 was ended by SIGKILL: the system was out of memory"


def test_a_supervisor_that_is_killed_is_the_cause(guardian: Path) -> None:
    (guardian / RANKS_NAME).touch()
    assert cause_of(ended(guardian)) == "the supervisor of the ranks was ended by SIGKILL"
    report_end(0, EndKind.LEFT, "ended with status 1", at=1.0)
    assert cause_of(ended(guardian)) == "the supervisor of the ranks was ended by SIGKILL"


@pytest.mark.parametrize(
    ("code", "asked", "kind", "what"),
    [
        (-9, "", EndKind.CAUSE, "was ended by SIGKILL"),
        (3, "", EndKind.LEFT, "ended with status 3 and without a word"),
        (130, "ended by SIGINT", EndKind.INTERRUPTED, "ended with status 130 and without a word"),
    ],
)
def test_a_rank_of_another_launcher_tells_the_others_how_it_ended(
    code: int,
    asked: str,
    kind: EndKind,
    what: str,
    guardian: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    become_rank_1(monkeypatch)
    recover(ended(guardian, code, asked))
    (end,) = reported_ends(guardian)
    assert (end.rank, end.kind, end.what, end.at) == (1, kind, what, 1.0)


def test_one_that_ended_well_tells_nothing(guardian: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    become_rank_1(monkeypatch)
    assert recover(ended(guardian, 0, done=True)).status == 0
    assert reported_ends(guardian) == []
    assert open_run_log(OutputRequest(), None) is None


def test_a_torn_line_ends_the_log(guardian: Path, results: Path) -> None:
    begun_log(results, epochs=2)
    with log_path(guardian).open("ab") as file:
        file.write(b'["over", {"lap": ')
    recover(ended(guardian))
    ((_, record),) = read_records([results]).records
    assert len(record.evaluations) == 2


def test_a_run_without_a_guardian_has_no_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    assert open_run_log(OutputRequest(), None) is None


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no full disk here")
def test_a_log_that_cannot_be_written_is_told_of_once(
    guardian: Path, results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = log_path(guardian)
    path.symlink_to("/dev/full")
    log = open_run_log(OutputRequest(results_dir=results), None)
    assert log is not None
    log.run_begun(draft())
    log.record_kept()
    assert capsys.readouterr().err.count("takes no more") == 1
    assert not path.is_symlink()
    assert recover(ended(guardian, -signal.SIGKILL)).status == 1


def test_halves_of_files_are_removed(ending: Ending, tmp_path: Path) -> None:
    results = tmp_path / "results"
    half = results / "machine" / f".record.json.{123456:08x}deadbeef.tmp"
    half.parent.mkdir(parents=True)
    half.touch()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(VARIABLE, "")
        enter_folder(ending.folder)
        patch.setattr(os, "getpid", lambda: 123456)
        note_writer(results)
    recovery.recover(ending)
    assert not half.exists()
