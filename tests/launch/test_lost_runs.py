"""Runs whose processes were all killed at once are saved by the next command."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bench.launch.lost_runs import ALL_ENDED, save_lost_runs
from bench.measure.guard_folder import fill_folder, note_writer
from bench.measure.request import OutputRequest
from bench.measure.run_log import FileRunLog, log_path
from bench.records.schema import RunRecord, Status
from bench.records.store import read_records
from mnist_cnn.leftovers import FOLDER_LOCK, lock_folder, sweep_folders
from tests.commands import BIN, PYTHON, ROOT, SHORT_RUN, clean_environment, launch
from tests.factories import make_record

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs locks and process groups")

FAULTS = ROOT / "tests" / "stand_ins" / "fault"


def left_folder(root: Path, results: Path | None, name: str = "mnist-bench-abandoned") -> Path:
    """The folder of a guardian that is dead."""
    folder = root / name
    folder.mkdir(mode=0o700)
    fill_folder(folder)
    (folder / FOLDER_LOCK).touch()
    FileRunLog(log_path(folder), OutputRequest(results_dir=results), None)
    return folder


def add_run(folder: Path, record: RunRecord, *, is_over: bool, is_kept: bool = False) -> None:
    log = FileRunLog(log_path(folder), OutputRequest(results_dir=folder.parent / "results"), None)
    log.run_begun(record)
    if is_over:
        log.run_over(record)
    if is_kept:
        log.record_kept()


def outcomes(results: Path) -> list[tuple[Status, str | None]]:
    read = read_records([results])
    assert not read.problems
    records = sorted((record for _, record in read.records), key=lambda record: record.run_index)
    return [(record.status, record.reason) for record in records]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("moment", "second"),
    [
        ("bench.records.store:save_record|2", (Status.COMPLETED, None)),
        pytest.param(
            *("bench.measure.observer:_Observer._trained|4", (Status.FAILED, ALL_ENDED)),
            marks=pytest.mark.thorough,
        ),
    ],
    ids=["measured", "begun"],
)
def test_the_next_command_saves_what_a_killed_one_had_measured(
    moment: str, second: tuple[Status, str | None], mnist_data_dir: Path, tmp_path: Path
) -> None:
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    environment = {
        "PYTHONPATH": f"{FAULTS}{os.pathsep}{ROOT}",
        "FAULT": f"0|{moment}|group=SIGKILL",
        "TMPDIR": str(temporary),
    }
    words = ["run", *SHORT_RUN, "--runs", "2", "--recipe", "fast", "--results-dir", "results"]
    words += ["--data-dir", str(mnist_data_dir)]
    killed = subprocess.run(
        [BIN / "mnist-bench", *words],
        cwd=tmp_path,
        env=clean_environment() | environment,
        capture_output=True,
        check=False,
        process_group=0,
    )
    assert killed.returncode == -signal.SIGKILL
    results = tmp_path / "results"
    assert outcomes(results) == [(Status.COMPLETED, None)]
    del environment["FAULT"]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    next_one = [BIN / "mnist-bench", "run", "--dry-run"]
    done = launch(next_one, elsewhere, **environment)
    assert done.returncode == 0
    assert done.stderr == (
        "mnist-bench: 1 run of an earlier command that was killed with all its processes: saved "
        f"in {results} (1 {second[0]})\n"
    )
    assert outcomes(results) == [(Status.COMPLETED, None), second]
    assert launch(next_one, elsewhere, **environment).stderr == ""
    assert list(temporary.iterdir()) == []
    assert len(list(results.rglob("*.json"))) == 2


def test_what_was_saved_is_not_saved_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = left_folder(tmp_path, tmp_path / "results")
    add_run(folder, make_record(run_index=1), is_over=True, is_kept=True)
    save_lost_runs(tmp_path)
    assert not folder.exists()
    assert not (tmp_path / "results").exists()
    assert capsys.readouterr().err == ""


def test_a_folder_that_takes_nothing_is_no_loss(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    (tmp_path / "results").write_text("no folder")
    folder = left_folder(tmp_path, tmp_path / "results")
    add_run(folder, make_record(run_index=1), is_over=True)
    save_lost_runs(tmp_path)
    assert outcomes(tmp_path / "state") == [(Status.COMPLETED, None)]
    assert "it is kept as" in capsys.readouterr().err
    assert not folder.exists()


def test_runs_that_were_not_to_be_saved_are_not(tmp_path: Path) -> None:
    folder = left_folder(tmp_path, None)
    log_path(folder).unlink()
    log = FileRunLog(log_path(folder), OutputRequest(results_dir=None), None)
    log.run_begun(make_record())
    save_lost_runs(tmp_path)
    assert list(tmp_path.iterdir()) == []


@contextmanager
def held(folder: Path) -> Iterator[None]:
    (folder / FOLDER_LOCK).unlink()
    descriptor = lock_folder(folder)
    try:
        yield
    finally:
        os.close(descriptor)


def test_what_a_living_process_uses_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    in_use = left_folder(tmp_path, tmp_path / "results", "mnist-bench-guarded1")
    orphaned = left_folder(tmp_path, tmp_path / "results", "mnist-bench-orphaned")
    for folder in (in_use, orphaned):
        add_run(folder, make_record(run_index=1), is_over=False)
    monkeypatch.setenv("MNIST_BENCH_GUARD", str(orphaned))
    note_writer(tmp_path / "results")  # this process
    with held(in_use):
        save_lost_runs(tmp_path)
        sweep_folders(tmp_path)
    assert in_use.exists()
    assert orphaned.exists()
    assert not (tmp_path / "results").exists()


def test_what_others_put_there_does_no_harm(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    (target / "runs.log").write_text("precious")
    (target / FOLDER_LOCK).touch()
    (tmp_path / "mnist-bench-aaaaaaaa").symlink_to(target)
    open_to_all = left_folder(tmp_path, tmp_path / "results", "mnist-bench-openopen")
    add_run(open_to_all, make_record(), is_over=True)
    open_to_all.chmod(0o777)
    makers: list[Callable[[Path], object]] = [
        os.mkfifo,
        lambda path: path.symlink_to("/dev/zero"),
        lambda path: path.mkdir(),
        lambda path: path.write_bytes(b"[" * 10**6),
        lambda path: path.write_text('["benchmark", 7]\n["record", {}]\n'),
        lambda path: path.write_text(
            '["benchmark", {"results_dir": 7, "share_records": null, "as_json": 1}]\n'
        ),
    ]
    for number, make in enumerate(makers):
        folder = tmp_path / f"mnist-bench-hostile{number}"
        folder.mkdir(mode=0o700)
        (folder / FOLDER_LOCK).touch()
        (folder / "writer-x").touch()
        make(folder / "runs.log")
    save_lost_runs(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {
        "target",
        "mnist-bench-aaaaaaaa",
        "mnist-bench-openopen",
    }
    assert (target / "runs.log").read_text() == "precious"
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("before", [[], ["--"]])
def test_a_variable_that_another_process_left_turns_no_guardian_off(
    before: list[str], tmp_path: Path
) -> None:
    """Every program that a run starts inherits it, and what that starts later."""
    folder = tmp_path / "guardian-of-another"
    folder.mkdir()
    (folder / "not-done-1-7").touch()
    done = launch(
        [PYTHON, "-m", "bench", *before, "run", "--dry-run"],
        PYTHONPATH=str(ROOT),
        MNIST_BENCH_GUARD=str(folder),
    )
    assert done.returncode == 0
    assert done.stderr == (
        "mnist-bench: warning: MNIST_BENCH_GUARD of the environment is ignored: the guardian that "
        "it names did not start this process\n"
    )
