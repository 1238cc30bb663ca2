"""`scripts/accelerate_launch.py`: exit statuses and signals of what it starts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAUNCHER = ROOT / "scripts" / "accelerate_launch.py"
CONFIG = ROOT / "scripts" / "accelerate.yaml"


def launched(program: Path, *arguments: str) -> subprocess.Popen[str]:
    command: list[str | Path] = [
        sys.executable,
        LAUNCHER,
        "--config_file",
        CONFIG,
        program,
        *arguments,
    ]
    return subprocess.Popen(
        command,
        start_new_session=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that ends with a given status, or waits for a signal and then saves slowly."""
    path = tmp_path / "program.py"
    path.write_text(
        "import os, signal, sys, time\n"
        "print(os.environ['ACCELERATE_MIXED_PRECISION'], sys.argv[1:], flush=True)\n"
        "if sys.argv[1] != 'wait':\n"
        "    number = int(sys.argv[1])\n"
        "    os.kill(os.getpid(), -number) if number < 0 else sys.exit(number)\n"
        "signal.signal(signal.SIGTERM, signal.default_int_handler)\n"
        "try:\n"
        "    print('ready', flush=True)\n"
        "    while True:\n"
        "        time.sleep(60)\n"
        "except KeyboardInterrupt:\n"
        "    signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "    time.sleep(1)\n"
        "    print('saved', flush=True)\n"
        "    sys.exit(130)\n"
    )
    return path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "exit_status", "message"),
    [("0", 0, ""), ("2", 2, ""), ("-9", 137, "the benchmark was ended by SIGKILL\n")],
)
def test_the_launcher_passes_the_exit_status_on(
    program: Path, status: str, exit_status: int, message: str
) -> None:
    with launched(program, status, "a b") as process:
        out, err = process.communicate()
    assert process.returncode == exit_status
    assert out == f"no ['{status}', 'a b']\n"
    assert err == message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stop", "number"), [(os.killpg, signal.SIGINT), (os.kill, signal.SIGTERM)]
)
def test_the_launcher_waits_until_an_interrupted_program_has_saved(
    program: Path, stop: Callable[[int, int], None], number: int
) -> None:
    with launched(program, "wait") as process:
        assert process.stdout is not None
        while process.stdout.readline() != "ready\n":
            assert process.poll() is None
        stop(process.pid, number)
        out, err = process.communicate()
    assert process.returncode == 130
    assert out == "saved\n"
    assert err == ""
