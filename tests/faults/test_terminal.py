"""The terminal goes away while a benchmark redraws its progress there."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from bench.records.store import read_records
from tests.commands import BIN, ROOT
from tests.faults.harness import RUN
from tests.stand_ins import FEW_IMAGES


@pytest.mark.slow
def test_a_terminal_that_goes_away_ends_nothing_under_nohup(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {name: text for name, text in os.environ.items() if name != "CI"}
    with (tmp_path / "table").open("wb") as table:
        process = subprocess.Popen(
            [BIN / "mnist-bench", *RUN, "--runs", "2", "--results-dir", tmp_path / "results"],
            cwd=ROOT,
            env=environment | FEW_IMAGES | {"TERM": "xterm"},
            stdin=theirs,
            stdout=table,
            stderr=theirs,
            start_new_session=True,
            preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),  # noqa: PLW1509
        )
    os.close(theirs)
    drawn = b""
    while b"seed 0" not in drawn:
        drawn += os.read(ours, 4096)
    os.close(ours)
    assert process.wait() == 0
    records = read_records([tmp_path / "results"]).records
    assert [record.status for _, record in records] == ["completed", "completed"]
    assert "2 records in" in (tmp_path / "table").read_text()
