"""`scripts/instruction_sets.py`: its table, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.kernels import native

ROOT = Path(__file__).resolve().parents[2]
USABLE = [kind for kind in native.FAST_KINDS if native.unavailable_reason(kind) is None]


def measure(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, ROOT / "scripts" / "instruction_sets.py", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.skipif(not USABLE, reason="no compiled code here")
def test_each_set_has_a_row() -> None:
    done = measure("--rounds", "1", "--threads", "1")
    assert done.returncode == 0, done.stderr
    title, heading, *rows = done.stdout.splitlines()
    assert title.startswith("1 threads, 1 rounds")
    assert heading.split()[0] == "set"
    assert [row.split()[0] for row in rows] == USABLE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["avx3"], "unknown instruction set 'avx3'; there are: amx, "),
        (["--threads", "9999"], "--threads must be 1 to "),
    ],
)
def test_what_cannot_be_measured_is_refused_in_one_line(
    arguments: list[str], complaint: str
) -> None:
    done = measure(*arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert complaint in done.stderr
