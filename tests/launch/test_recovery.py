"""What is saved after the process that measured has died; tests/faults does it with real ones."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from bench.launch import recovery
from bench.launch.guard import Ending
from bench.measure.request import OutputRequest
from bench.measure.run_log import FileRunLog, log_path
from bench.records.schema import Status
from bench.records.store import read_records
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
