"""An error that nothing expects is one line and exit status 1, whatever it is."""

from __future__ import annotations

import errno
import os
import sys
from pathlib import Path

import pytest

from mnist_cnn import summary
from mnist_cnn.__main__ import main
from tests.commands import PYTHON, ROOT, launch
from tests.mnist_cnn.program import Output

FAULTS = ROOT / "tests" / "stand_ins" / "fault"


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (SystemExit(0), "SystemExit: 0"),
        (SystemExit("bye"), "SystemExit: bye"),
        (GeneratorExit(), "GeneratorExit"),
        (MemoryError(), "out of memory (MemoryError)"),
        (
            RuntimeError(
                "[gloo/transport/tcp/pair.cc:534] \N{FIRE} Connection closed by peer "
                "[10.0.0.2]:4711\n at frame"
            ),
            "RuntimeError: Connection closed by peer an address",
        ),
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), "broken pipe"),
        (OSError(errno.ENOSPC, "No space left on device"), "no space left on device"),
        (OSError(errno.EIO, "Input/output error"), "input/output error"),
        (OSError(errno.EBADF, "Bad file descriptor"), "bad file descriptor"),
    ],
)
def test_it_is_one_line(
    error: BaseException, line: str, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(summary, "table", fail)
    assert main(["summary"]) == 1
    assert capsys.readouterr() == (
        "",
        f"mnist_cnn: error: {line} (MNIST_BENCH_TRACEBACK=1 shows where)\n",
    )


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="has no sh")
def test_a_broken_pipe_elsewhere_is_told_although_stdout_is_one() -> None:
    done = launch(
        ["sh", "-c", '"$0" "$@" | cat', PYTHON, "-m", "mnist_cnn", "summary"],
        PYTHONPATH=f"{FAULTS}{os.pathsep}{ROOT}",
        FAULT="*|mnist_cnn.summary:table|1|raise=BrokenPipeError(32, 'Broken pipe')",
        MNIST_BENCH_GUARD="none",
    )
    assert done.stdout == ""
    assert done.stderr == "mnist_cnn: error: broken pipe (MNIST_BENCH_TRACEBACK=1 shows where)\n"


@pytest.mark.slow
def test_an_end_in_the_midst_of_a_training_is_a_failure(
    mnist_data_dir: Path, tmp_path: Path
) -> None:
    words = ["--recipe", "fast", "--epochs", "3", "--data-dir", str(mnist_data_dir), "--save", "m"]
    done = launch(
        [PYTHON, "-m", "mnist_cnn", "train", *words],
        tmp_path,
        PYTHONPATH=f"{FAULTS}{os.pathsep}{ROOT}",
        FAULT="*|mnist_cnn.batches:Batches.end_epoch|1|raise=SystemExit(0)",
        MNIST_BENCH_GUARD="none",
        ACCELERATE_USE_CPU="true",
        OMP_NUM_THREADS="1",
    )
    assert done.returncode == 1
    assert done.stderr == (
        "mnist_cnn: error: SystemExit: 0 (MNIST_BENCH_TRACEBACK=1 shows where)\n"
    )


@pytest.mark.parametrize("words", [["--help"], ["summary", "--help"]])
def test_help_ends_well(words: list[str]) -> None:
    done = launch([PYTHON, "-m", "mnist_cnn", *words], PYTHONPATH=str(ROOT))
    assert (done.returncode, done.stderr) == (0, "")
    assert "Usage: mnist_cnn" in done.stdout


@pytest.mark.parametrize("words", [["run", "--dry-run"], ["ab", "--help"], ["report", "results"]])
def test_a_separator_before_the_command_changes_nothing(words: list[str]) -> None:
    """Also with a variable that only commands that train look at."""
    plain, after = (
        launch([PYTHON, "-m", "bench", *before, *words], WORLD_SIZE="many")
        for before in ([], ["--"])
    )
    assert (after.returncode, after.stdout, after.stderr) == (
        plain.returncode,
        plain.stdout,
        plain.stderr,
    )
    assert plain.returncode == (2 if words[0] == "run" else 0)
