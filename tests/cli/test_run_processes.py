"""`mnist-bench run` in several processes: `--processes`, launchers, and ranks that die."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from bench.cli import main
from bench.machine.cores import usable_cores
from bench.measure.plan import choose_processes
from bench.measure.request import ComputeRequest
from bench.records.store import read_records
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels import native
from mnist_cnn.recipe import REFERENCE
from tests.commands import BIN, PYTHON, ROOT, SHORT_RUN, clean_environment, launch
from tests.shared import made_once
from tests.stand_ins import FEW_IMAGES, FEWER_IMAGES

RANK_OF_THREE = {
    "RANK": "0",
    "WORLD_SIZE": "3",
    "LOCAL_RANK": "0",
    "LOCAL_WORLD_SIZE": "3",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "29500",
}


@pytest.mark.parametrize(
    ("options", "environment", "complaint"),
    [
        (["--processes", "0"], {}, "--processes must be at least 1, not 0"),
        (["--processes", "many"], {}, "--processes must be a whole number or auto, not 'many'"),
        (["--processes", "2"], RANK_OF_THREE, "--processes 2, but the launcher started 3"),
    ],
)
def test_process_counts_that_cannot_be_are_refused(
    options: list[str],
    environment: dict[str, str],
    complaint: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name, text in environment.items():
        monkeypatch.setenv(name, text)
    assert main(["run", *options]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert complaint in error


def test_auto_is_a_process_a_core_for_torchs_operators_and_one_for_the_rest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("bench.measure.plan.usable_cores", lambda: 12)
    plain = replace(REFERENCE, batch_size=96)
    cpu = ComputeRequest(device="cpu")
    assert choose_processes(plain, cpu) == 12
    assert choose_processes(plain, replace(cpu, threads=4)) == 3
    assert choose_processes(REFERENCE, replace(cpu, kernels="torch")) == 8  # of a batch of 128
    if native.unavailable_reason() is None:
        assert choose_processes(REFERENCE, replace(cpu, precision="bf16")) == 1
    with pytest.raises(UsageError, match="it computes in bf16, not fp32"):
        choose_processes(REFERENCE, replace(cpu, precision="fp32", kernels="avx512"))


@pytest.mark.slow
def test_auto_starts_them_and_its_ranks_know(tmp_path: Path) -> None:
    options = ["--processes", "auto", "--device", "cpu", "--json"]
    options += ["--kernels", "torch", "--precision", "fp32"]
    done = launch([BIN / "mnist-bench", "run", *options, *SHORT_RUN, "--no-save"], **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    [run] = json.loads(done.stdout)
    assert (run["processes"], run["threads"]) == (usable_cores(), 1)


@pytest.mark.slow
def test_processes_that_do_not_divide_the_batch_are_refused_in_one_line() -> None:
    """And more than there are cores are warned of."""
    done = launch([BIN / "mnist-bench", "run", "--processes", "3", "--no-save"])
    assert done.returncode == 2
    *warned, refused = done.stderr.splitlines()
    assert "128 images does not divide among 3 processes; use 2 processes" in refused
    cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    assert len(warned) == (cores < 3)


@pytest.mark.slow
def test_processes_are_started_and_joined() -> None:
    options = ["--processes", "2", *SHORT_RUN, "--no-save", "--json"]
    done = launch([BIN / "mnist-bench", "run", *options], **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert run["processes"] == 2
    assert run["status"] == "completed"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the rank in /proc")
def test_a_rank_that_dies_ends_all_and_the_record_says_which(tmp_path: Path) -> None:
    # So many epochs that it cannot be over before the rank is killed.
    command = ["run", "--processes", "2", "--runs", "2", "--epochs", "5000", "--threads", "1"]
    with subprocess.Popen(
        [str(BIN / "mnist-bench"), *command, "--results-dir", str(tmp_path)],
        cwd=ROOT,
        env=clean_environment() | FEW_IMAGES,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "epoch 2 of" in line:
                break
        (second,) = [
            child
            for child in psutil.Process(process.pid).children(recursive=True)
            if child.environ().get("RANK") == "1"
        ]
        second.kill()
        process.stderr.read()
        assert process.wait() == 1
    ((_, record),) = read_records([tmp_path]).records
    assert record.status == "failed"
    assert record.reason == "rank 1 was ended by SIGKILL"


@pytest.mark.slow
def test_an_accelerate_launch_that_started_one_of_two_processes_is_refused() -> None:
    """Accelerate 1.15 starts one process here, and says nothing."""
    asked = ["accelerate", "launch", "--cpu", "--num_processes", "2", "bench/run.py", "--no-save"]
    done = launch(asked)
    assert done.returncode != 0
    assert "started one process although several were requested" in done.stderr
    assert "torchrun --standalone --nproc_per_node 2 bench/run.py" in done.stderr


@pytest.mark.thorough
def test_a_batch_that_does_not_divide_among_the_processes_is_refused() -> None:
    done = launch([BIN / "torchrun", "--standalone", "--nproc_per_node", "3", "bench/run.py"])
    assert done.returncode != 0
    refusals = re.findall(r"mnist-bench: error: .*128 images does not divide among 3", done.stderr)
    assert len(refusals) == 1
    assert "bench/cli" not in done.stderr  # the only traceback is torchrun's own


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Records of a run of the fast recipe, a short one, in one and in two processes."""

    def make(folder: Path) -> None:
        options = [*SHORT_RUN, "--seed", "3", "--quiet"]
        two = [BIN / "torchrun", "--standalone", "--nproc_per_node", "2"]
        for count, start in ((1, [PYTHON]), (2, two)):
            where = ["--results-dir", folder, "--label", str(count)]
            done = launch([*start, "bench/run.py", *options, *where])
            assert done.returncode == 0, done.stderr

    return made_once(tmp_path_factory, "two-processes", make)


@pytest.mark.slow
def test_two_processes_do_the_work_of_one(two_processes: Path) -> None:
    result = read_records([two_processes])
    assert result.problems == []
    one, two = sorted((r for _, r in result.records), key=lambda record: record.setup.processes)
    assert (one.setup.processes, two.setup.processes) == (1, 2)
    for record in (one, two):  # each rank looked at its share of the test images once more
        assert record.mistakes is not None
        assert len(record.mistakes.images) == 10_000 - record.evaluations[-1].correct
    for count in ("steps", "samples"):
        assert [getattr(e, count) for e in one.epochs] == [getattr(e, count) for e in two.epochs]
    assert [(e.epoch, e.samples) for e in one.evaluations] == [(3, 10_000)]
    assert [(e.epoch, e.samples) for e in two.evaluations] == [(3, 10_000)]
    assert one.recipe == two.recipe
    assert one.all_reduce_seconds is None
    assert two.all_reduce_seconds
    for record, count in ((one, ""), (two, "2 processes at a time")):
        assert record.calibration is not None
        assert record.calibration.work.endswith(count)
    for record in (one, two):  # in fp32 the CPU's own operators have nothing to be compared with
        assert (record.parity is None) == (record.setup.precision == "fp32")
    # The same images, distorted alike, in the same groups of the same batches. Two processes add
    # gradients in another order, and later epochs magnify the last bits.
    assert one.epochs[0].loss == pytest.approx(two.epochs[0].loss, rel=0.01)
    assert min(one.evaluations[0].accuracy, two.evaluations[0].accuracy) > 0.9


@pytest.mark.thorough
def test_two_processes_without_being_told_of_the_cpu_still_find_each_other() -> None:
    """torchrun alone leaves each process of Accelerate believing that it is the only one."""

    if torch.cuda.is_available():
        pytest.skip("would find GPUs")
    command = [BIN / "torchrun", "--standalone", "--nproc_per_node", "2", "bench/run.py"]
    done = launch([*command, *SHORT_RUN, "--no-save", "--json"], **FEWER_IMAGES)
    assert done.returncode == 0, done.stderr
    (run,) = json.loads(done.stdout)
    assert (run["processes"], run["threads"]) == (2, 1)
