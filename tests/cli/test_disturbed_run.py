"""Real runs that are disturbed from outside: the record says so, and so does whoever reads it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from bench.analysis.result_warnings import ResultWarning, run_warnings
from bench.records.schema import RunRecord
from bench.records.store import read_records
from tests.control_group import NoControlGroupError, control_group, entering, limit
from tests.stand_ins import FEW_IMAGES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="affinity and control groups are Linux's"),
]
STOP_SECONDS = 3.0
"""Least time for which a run is stopped."""


def disturbed(
    tmp_path: Path, disturb: Callable[[int, float], object], starter: tuple[str, ...] = ()
) -> RunRecord:
    """The record of a short run that is disturbed when its first epoch is over.

    Args:
        tmp_path: folder of the record.
        disturb: gets the id of the process that trains, and the seconds that the run has taken.
        starter: command that becomes the command that follows it.
    """
    words = ["run", "--recipe", "fast", "--epochs", "2", "--runs", "1", "--threads", "1"]
    words += ["--device", "cpu", "--results-dir", str(tmp_path / "results")]
    mnist_bench = str(Path(sys.executable).with_name("mnist-bench"))
    with subprocess.Popen(
        [*starter, mnist_bench, *words],
        env=os.environ | FEW_IMAGES,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stderr is not None
        lines = []
        began = time.monotonic()
        for line in process.stderr:
            lines.append(line)
            if "seed 0" in line:
                began = time.monotonic()
            if "epoch 1 of 2" in line:
                (trains,) = psutil.Process(process.pid).children()
                disturb(trains.pid, time.monotonic() - began)
        assert process.wait() == 0, "".join(lines)
    ((_, record),) = read_records([tmp_path / "results"]).records
    return record


def test_a_suspended_run_is_named(tmp_path: Path) -> None:
    def suspend(pid: int, elapsed_seconds: float) -> None:
        process = psutil.Process(pid)
        os.kill(pid, signal.SIGSTOP)
        while process.status() != psutil.STATUS_STOPPED:
            pass
        # Not a wait for something: this is how long the run stands still.
        time.sleep(max(STOP_SECONDS, 3 * elapsed_seconds))
        os.kill(pid, signal.SIGCONT)

    record = disturbed(tmp_path, suspend)
    warnings = run_warnings(record)
    # On a busy machine others may have had the cores meanwhile, and that is said.
    assert {ResultWarning.SUSPENDED, ResultWarning.BUSY_MACHINE} & {*warnings}
    alone = record.load.model_copy(update={"busy_seconds": record.load.own_seconds})
    assert ResultWarning.SUSPENDED in run_warnings(record.model_copy(update={"load": alone}))


@pytest.mark.skipif((os.cpu_count() or 1) < 2, reason="one core cannot be taken away")
def test_a_run_whose_cores_are_taken_away_is_named(tmp_path: Path) -> None:
    allowed = os.sched_getaffinity(0)
    if len(allowed) < 2:
        pytest.skip("one core cannot be taken away")

    def take_a_core(pid: int, _: float) -> None:
        os.sched_setaffinity(pid, {min(allowed)})

    record = disturbed(tmp_path, take_a_core)
    assert record.load.usable_cores_before == len(allowed)
    assert record.load.usable_cores_after == 1
    assert record.load.busy_seconds is None or record.load.busy_seconds >= 0
    assert ResultWarning.ALLOWANCE_CHANGED in run_warnings(record)


@pytest.fixture
def cpu_group() -> Iterator[Path]:
    try:
        with control_group("cpu") as group:
            yield group
    except NoControlGroupError:
        pytest.skip("no control group can be made here")


@pytest.mark.thorough
def test_a_run_that_a_quota_slows_down_is_named(tmp_path: Path, cpu_group: Path) -> None:
    tenth = {"cpu.cfs_quota_us": "10000", "cpu.max": "10000 100000"}
    record = disturbed(tmp_path, lambda *_: limit(cpu_group, tenth), entering(cpu_group))
    load = record.load
    assert load.quota_cores_before != load.quota_cores_after == 0.1
    assert load.throttled_seconds is not None
    expected = {ResultWarning.ALLOWANCE_CHANGED, ResultWarning.QUOTA_THROTTLED}
    assert expected <= {*run_warnings(record)}
