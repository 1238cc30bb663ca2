"""scripts/torch_threads.py: its points, its table, and that it measures."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "torch_threads.py"


@pytest.fixture(scope="module")
def script() -> ModuleType:
    spec = spec_from_file_location("torch_threads", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look there for annotations
    spec.loader.exec_module(module)
    return module


def test_points_are_one_thread_all_threads_and_a_process_a_core(script: ModuleType) -> None:
    labels = [point.label for point in script.all_points(12)]
    assert len(set(labels)) == len(labels) == 2**4 * 3
    # 12 processes do not divide a batch of 128.
    assert {label.split()[-1] for label in labels} == {"1x1", "1x12", "8x1"}
    assert {point.label.split()[-1] for point in script.all_points(1)} == {"1x1"}


def test_the_table_has_medians_and_their_number(script: ModuleType) -> None:
    first, second, *_ = script.all_points(2)
    _, *lines = script.table({first: [900.0, 1100.0, 1000.4], second: [7.0]}).splitlines()
    assert lines[0].split() == [*first.label.split(), "3", "1000", "900", "1100"]
    assert lines[1].split()[-4:] == ["1", "7", "7", "7"]


def test_unknown_words_are_refused_in_one_line() -> None:
    command = [sys.executable, str(SCRIPT), "fp8"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "no point has the words 'fp8'" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    "words", [pytest.param(["one-pass"], marks=pytest.mark.thorough), ["pass-a-group", "1x1"]]
)
def test_it_measures(words: list[str]) -> None:
    """The points of a process and of several."""
    words = ["avx2", "fp32", "channels_last", *words, "--rounds", "1", "--steps", "1"]
    command = [sys.executable, str(SCRIPT), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    _, *lines = done.stdout.splitlines()
    assert lines
    assert all(float(line.split()[-3]) > 0 for line in lines)
