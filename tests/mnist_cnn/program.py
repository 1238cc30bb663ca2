"""The workload's program, `python -m mnist_cnn`, started as a user starts it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, clean_environment
from tests.stand_ins import FEW_IMAGES

CPU = {"ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
FEW = {"PYTHONPATH": os.pathsep.join([FEW_IMAGES["PYTHONPATH"], str(ROOT)])}

RANK_OF_TWO = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}

Output = pytest.CaptureFixture[str]


def environment(**added: str) -> dict[str, str]:
    """Without what a launcher around pytest would have left."""
    return clean_environment() | {"PYTHONPATH": str(ROOT)} | added


def launch(*words: str | Path, cwd: Path, **added: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of `python -m` and these words."""
    with subprocess.Popen(
        [sys.executable, "-m", *map(str, words)],
        cwd=cwd,
        env=environment(**added),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            said, complained = process.communicate()
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)  # a launcher would leave its ranks behind
            raise
    return process.returncode, said, complained


def refused(output: Output) -> str:
    """What a refused command said: one line on stderr, nothing else."""
    said = output.readouterr()
    assert said.out == ""
    assert said.err.startswith("mnist_cnn: error: ")
    assert said.err.count("\n") == 1
    return said.err
