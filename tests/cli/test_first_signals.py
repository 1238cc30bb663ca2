"""Ctrl-C while a command starts: one line, exit 130, whatever is being imported."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.commands import BIN, PYTHON, ROOT, launch

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="has no such signals")

INTERRUPTER = ROOT / "tests" / "stand_ins" / "interrupted_import"
PROGRAMS: dict[str, list[object]] = {
    "mnist-bench": [BIN / "mnist-bench"],
    "python -m bench": [PYTHON, "-m", "bench"],
    "bench/run.py": [PYTHON, ROOT / "bench" / "run.py"],
    "mnist_cnn": [PYTHON, "-m", "mnist_cnn"],
}


def interrupted(
    program: str, words: list[str], module: str, name: str = "SIGINT"
) -> tuple[int, str, str]:
    path = f"{INTERRUPTER}:{ROOT}"
    done = launch(
        [*PROGRAMS[program], *words], PYTHONPATH=path, INTERRUPT_AT=module, INTERRUPT_BY=name
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize(
    ("program", "words", "module"),
    [
        ("mnist-bench", ["report", "results"], "mnist_cnn.rank"),
        ("mnist-bench", ["report", "results"], "mnist_cnn.process"),
        ("mnist-bench", ["report", "results"], "typer"),
        ("mnist-bench", ["report", "results"], "bench.cli.report"),
        ("mnist-bench", ["report", "results"], "pydantic"),
        ("mnist-bench", ["run", "--dry-run"], "bench.launch.guard"),
        ("mnist-bench", ["run", "--dry-run"], "bench.launch.parents"),
        ("python -m bench", ["run", "--dry-run"], "bench.launch.guard"),
        ("bench/run.py", ["--dry-run"], "mnist_cnn.rank"),
        ("bench/run.py", ["--dry-run"], "bench.launch.guard"),
        ("mnist_cnn", ["summary"], "typer"),
        ("mnist_cnn", ["summary"], "mnist_cnn.console"),
        ("mnist_cnn", ["summary"], "mnist_cnn.surroundings"),
        ("mnist_cnn", ["summary"], "torch"),
    ],
)
def test_one_line_while_it_starts(program: str, words: list[str], module: str) -> None:
    name = "mnist_cnn" if program == "mnist_cnn" else "mnist-bench"
    assert interrupted(program, words, module) == (130, "", f"{name}: interrupted\n")


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_so_for_the_other_signals(name: str) -> None:
    assert interrupted("mnist_cnn", ["summary"], "typer", name) == (
        130,
        "",
        "mnist_cnn: interrupted\n",
    )


@pytest.mark.parametrize("module", ["bench.cli.app", "bench.cli.run", "torch"])
def test_where_a_guardian_watches_already(module: str, tmp_path: Path) -> None:
    words = ["run", "--results-dir", str(tmp_path / "results")]
    status, output, said = interrupted("mnist-bench", words, module)
    assert (status, output) == (130, "")
    assert said == "mnist-bench: interrupted while no run was being measured\n"
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_imported_before() -> None:
    """But what the interpreter has imported itself: a signal would meet its own handler."""
    script = (
        "import os, sys; before = set(sys.modules); import bench.cli, mnist_cnn.first_signals; "
        "print(*sorted(set(sys.modules) - before))"
    )
    done = launch([PYTHON, "-S", "-c", script], PYTHONPATH=str(ROOT))
    assert set(done.stdout.split()) - {"_signal"} == {
        "__future__",
        "bench",
        "bench.cli",
        "mnist_cnn",
        "mnist_cnn.first_signals",
    }
