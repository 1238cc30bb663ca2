"""The commands, started as a user starts them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
BIN = Path(PYTHON).parent
_LEFT_BY_LAUNCHERS = (
    "ACCELERATE_",
    "MASTER_",
    "WORLD_SIZE",
    "RANK",
    "LOCAL_",
    "OMP_",
    "TORCHELASTIC",
)
SHORT_RUN = ("--runs", "1", "--epochs", "3", "--threads", "1")
"""Three epochs of `fast` take a tenth of the images each, where its only one would take all. One
thread: on a busy machine two wait for each other most of the time."""


def launch(
    command: Sequence[object], cwd: Path = ROOT, /, **environment: str
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(word) for word in command],
        cwd=cwd,
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def clean_environment() -> dict[str, str]:
    """Without what a launcher around pytest would have left."""
    return {k: v for k, v in os.environ.items() if not k.startswith(_LEFT_BY_LAUNCHERS)} | {
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"
    }
