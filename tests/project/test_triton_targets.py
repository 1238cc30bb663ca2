"""The Triton kernels compiled for GPUs that are not here, and which table of shapes fits them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="the package triton is not installed")
SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "triton_targets.py"


def compile_for(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, SCRIPT, *words], capture_output=True, text=True, check=False
    )


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("target", "table"),
    # The oldest NVIDIA GPU, with the least shared memory, and one on which the first does not fit.
    [("sm_75", "measured"), ("gfx1100", "halved")],
)
def test_the_kernels_compile_and_fit(target: str, table: str) -> None:
    done = compile_for(target, "--precision", "fp32")
    assert done.returncode == 0, done.stderr
    _, row = done.stdout.splitlines()
    assert row.split()[0] == target
    assert row.split()[-1] == table


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["gfx94"], "unknown target 'gfx94' (did you mean 'gfx942'?); there are: sm_75, sm_80,"),
        (["--precision", "fp8"], "unknown precision 'fp8'; there are: bf16, fp32"),
    ],
)
def test_what_does_not_exist_is_refused_in_one_line(words: list[str], complaint: str) -> None:
    done = compile_for(*words)
    assert done.returncode == 2
    assert complaint in done.stderr
    assert done.stderr.count("\n") == 1
