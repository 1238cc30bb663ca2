"""`scripts/gpu` without a GPU: what it would run, by a Python that only logs its arguments."""

from __future__ import annotations

import shutil
import subprocess
from functools import cache

import pytest

from tests.commands import BIN, ROOT, launch

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="no bash")

LOGS = """#!/bin/sh
printf '%s\\n' "$*" >>"$LOG"
case "$*" in
*device_count*) echo 2 ;;
*--results-dir*) mkdir -p results/local/nvidia-h200 results/local/gpu-variants/nvidia-h200 ;;
esac
"""


@cache
def help_of(command: str) -> str:
    return launch([BIN / "mnist-bench", command, "--help"], COLUMNS="200").stdout


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[list[str]]:
    """The words of each command."""
    folder = tmp_path_factory.mktemp("gpu")
    for name in ("scripts", "data", "elsewhere"):
        (folder / name).mkdir()
    shutil.copy(ROOT / "scripts/gpu", folder / "scripts")
    (folder / "data" / "t10k-labels-idx1-ubyte").touch()
    python = folder / "python"
    python.write_text(LOGS)
    python.chmod(0o755)
    log = folder / "log"
    done = subprocess.run(
        [folder / "scripts/gpu", "../data", "../output"],
        cwd=folder / "elsewhere",
        env={"PATH": "/usr/bin:/bin", "PYTHON": str(python), "LOG": str(log)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    kept = {path.name for path in (folder / "output").iterdir()}
    assert {"records", "tests.txt", "env.json", "verify.txt"} <= kept
    copied = {path.name for path in (folder / "output" / "records").iterdir()}
    assert copied == {"nvidia-h200", "gpu-variants"}
    return [line.split() for line in log.read_text().splitlines()]


@pytest.mark.slow
def test_every_option_exists(lines: list[list[str]]) -> None:
    for words in lines:
        match words:
            case ["-W", "ignore", "bench/run.py", *options] | ["bench/run.py", *options]:
                text = help_of("run")
            case ["-m", "bench", command, *options]:
                text = help_of(command)
            case _:
                continue
        for option in [word for word in options if word.startswith("--")]:
            assert option in text.replace("--[no-]", "--no-"), option


def test_tests_that_it_names_exist(lines: list[list[str]]) -> None:
    commands = [words for words in lines if words[:2] == ["-m", "pytest"]]
    assert commands
    for words in commands:
        files = [word for word in words if word.endswith(".py")]
        assert files
        assert all((ROOT / name).is_file() for name in files)


def test_no_record_will_hold_a_path_of_the_machine(lines: list[list[str]]) -> None:
    runs = [words for words in lines if "--results-dir" in words]
    folders = {words[words.index("--results-dir") + 1] for words in runs}
    assert folders == {"results/local", "results/local/gpu-variants"}
    for words in runs:
        assert not [word for word in words if word.startswith("/")]
        # What stands for the machine has no label; an experiment has one.
        is_official = words[words.index("--results-dir") + 1] == "results/local"
        assert ("--label" in words) is not is_official
