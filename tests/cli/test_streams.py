"""Commands whose output goes nowhere, and commands that are interrupted, end in one line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mnist_cnn.program import RANK_OF_TWO

ROOT = Path(__file__).resolve().parents[2]
PYTHON = sys.executable

MEETING = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}

pytestmark = pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")


def shell(script: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", "-c", script],
        cwd=ROOT,
        env=os.environ | {"PYTHON": PYTHON} | variables,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "command",
    ["report results/ --to csv", "report results/", "report results/ --to json", "env --json"],
)
def test_a_full_disk_is_one_line(command: str) -> None:
    done = shell(f'"$PYTHON" -m bench {command} >/dev/full')
    assert done.returncode == 1
    (line,) = [line for line in done.stderr.splitlines() if "mnist-bench: " in line]
    assert line == "mnist-bench: error: the output could not be written: No space left on device"
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_closed_streams_are_no_traceback() -> None:
    done = shell('"$PYTHON" -m bench report results/ >&-; echo status $? >&2')
    assert done.stderr.splitlines()[-1] == "status 0"
    assert "Traceback" not in done.stderr
    assert shell('"$PYTHON" -m bench report results/ >&- 2>&-').returncode == 0


@pytest.mark.slow
def test_a_reader_who_has_enough_hears_nothing() -> None:
    done = shell('"$PYTHON" -m bench report results/ --to json | head -c 1')
    assert done.stdout == "["
    assert done.stderr == ""


@pytest.mark.slow
def test_an_interrupted_command_says_so() -> None:
    script = """
import os, signal, sys
from bench.cli import app, start

def wait() -> None:
    os.kill(os.getpid(), signal.SIGINT)
    while True:
        pass

program = app.make_app([])
program.command()(wait)
app.make_app = lambda words: program
sys.exit(start(["wait"]))
"""
    done = subprocess.run(
        [PYTHON, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 130
    assert done.stderr == "mnist-bench: interrupted\n"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "finalized"),
    [({}, True), (RANK_OF_TWO | MEETING | {"TORCHELASTIC_RUN_ID": "none"}, False)],
)
def test_a_rank_ends_without_finalization(variables: dict[str, str], finalized: bool) -> None:
    """Whichever way it is started: gloo's threads may abort a process that is being finalized."""
    script = "import atexit; atexit.register(print, 'final'); from bench.cli import main; main()"
    done = shell(f'"$PYTHON" -c "{script}" run --recipe unknown', **variables)
    assert done.returncode == 2
    assert "unknown recipe 'unknown'" in done.stderr
    assert ("final" in done.stdout) is finalized


@pytest.mark.slow
@pytest.mark.parametrize(("module", "command"), [("report", "report"), ("dispatch", "run")])
def test_bytecode_that_is_cut_off_is_one_line(tmp_path: Path, module: str, command: str) -> None:
    """As Python leaves it where the disk becomes full."""
    source = ROOT / "bench" / "cli" / f"{module}.py"
    script = (
        "import py_compile; from pathlib import Path\n"
        f"path = Path(py_compile.compile({str(source)!r}))\n"
        "path.write_bytes(path.read_bytes()[:200])"
    )
    kept = {"PYTHONPYCACHEPREFIX": str(tmp_path)}
    subprocess.run([PYTHON, "-c", script], env=os.environ | kept, check=True)
    done = shell(f'"$PYTHON" -m bench {command}', **kept)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "EOFError" in line
    assert "cut off; delete the __pycache__ folders" in line
