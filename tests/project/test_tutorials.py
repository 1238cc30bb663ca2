"""The commands of the tutorials, one after the other, as a reader types them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from functools import reduce
from pathlib import Path

import pytest

from tests.commands import BIN, ROOT, clean_environment
from tests.stand_ins import FEW_IMAGES

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
_ELSEWHERE = (
    ". .venv/bin/activate",
    "./scripts/setup",
    "mnist-bench ab --name gate --a-commit",  # tests/launch/test_ab.py, with its set-up
    "mnist-bench compare gate-a gate-b",
    "./scripts/check-results",  # tests/project/test_check_results.py
)
"""Lines that other tests run, or that need what these have made."""
_HERE = {
    "--recipe reference": "--recipe reference --epochs 1",  # else minutes, even with few images
    "./scripts/bench": "mnist-bench run",  # after its set-up
}
"""What is typed here instead."""
_MAY_FAIL = ("compare", "verify")
"""Commands whose exit status is their answer: that of few images is another than the reader's."""


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)^```", page.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.splitlines()]


@pytest.mark.thorough
@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_every_command_can_be_followed(page: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, clone], check=True)
    native = Path("mnist_cnn/kernels/native/libnative.so")
    if (ROOT / native).exists():
        shutil.copy(ROOT / native, clone / native)
    environment = clean_environment() | {
        "PYTHONPATH": f"{FEW_IMAGES['PYTHONPATH']}{os.pathsep}{clone}",
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "CI": "true",
        "XDG_STATE_HOME": str(tmp_path / "state"),
        **{
            f"GIT_{who}_{what}": "tester"
            for who in ("AUTHOR", "COMMITTER")
            for what in ("NAME", "EMAIL")
        },
    }
    lines = [line for line in commands(page) if not line.startswith(_ELSEWHERE)]
    assert lines
    for typed in lines:
        line = reduce(lambda text, change: text.replace(*change), _HERE.items(), typed)
        done = subprocess.run(
            ["sh", "-c", line],
            cwd=clone,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        told = f"{line}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, told
        usual = (0, 1, 2) if any(f" {word} " in line for word in _MAY_FAIL) else (0,)
        assert done.returncode in usual, told
        if done.returncode == 2:  # refused for what the data are, never for how it was typed
            assert re.search("tell|missed|runs", done.stdout + done.stderr), told


def test_the_pages_name_all_tutorials() -> None:
    overview = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    assert all(f"(tutorials/{page.name})" in overview for page in TUTORIALS)
