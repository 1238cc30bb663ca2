"""A benchmark whose kernels fail on the device, from the command to the record and the table."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.cli import main
from bench.records.store import read_records
from tests.commands import launch
from tests.stand_ins import FEWER_IMAGES

pytest.importorskip("triton", reason="the package triton is not installed")
# Triton's kernels are taken for fit for a CPU; they then fail as they do without a driver.
PROGRAM = (
    "import sys\n"
    "from bench.measure import kernel_choice\n"
    "kernel_choice.triton_unsupported_reason = lambda *_: None\n"
    "from bench.cli import main\n"
    "sys.exit(main(sys.argv[1:]))\n"
)
WORDS = ["run", "--recipe", "fast-gpu", "--device", "cpu", "--epochs", "1", "--runs", "1"]
WORDS += ["--precision", "fp32"]  # a CPU without bf16 takes minutes for its products


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_what_failed_and_what_trained_is_said_recorded_and_in_the_table(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, *WORDS, "--threads", "1", "--results-dir", "results"]
    done = launch(words, tmp_path, **FEWER_IMAGES, COLUMNS="300")
    assert done.returncode == 0, done.stderr
    assert "triton cannot be used here: RuntimeError: 0 active drivers" in done.stderr
    assert "torch trains instead" in done.stderr
    assert "trained by other code than this device is meant to have" in done.stdout
    assert "triton: RuntimeError: 0 active drivers" in done.stdout
    ((_, record),) = read_records([tmp_path / "results"]).records
    assert record.setup.kernels == "torch"
    (fallback,) = record.setup.fallbacks
    assert (fallback.kernels, fallback.captured) == ("triton", False)
    assert "0 active drivers" in fallback.reason
    assert fallback.kernel_shapes is not None
    verified = launch([sys.executable, "-m", "bench", "verify", "results"], tmp_path)
    assert re.search(r"plans +pass", verified.stdout), verified.stdout


@pytest.mark.slow
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a driver")
def test_kernels_that_were_asked_for_are_refused_in_one_line(tmp_path: Path) -> None:
    words = [sys.executable, "-c", PROGRAM, *WORDS, "--kernels", "triton"]
    done = launch([*words, "--results-dir", "results"], tmp_path, **FEWER_IMAGES)
    assert done.returncode == 2
    assert done.stderr.startswith("mnist-bench: error: --kernels triton cannot be used: ")
    assert done.stderr.endswith("use --kernels auto\n")
    assert done.stderr.count("\n") == 1


@pytest.mark.slow
def test_operators_that_torch_cannot_fuse_are_refused_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are compiled when they first run, also where no step is captured."""

    def compile_nothing(function: Callable[..., Any], **_: object) -> Callable[..., Any]:
        def fail(*_: object) -> None:
            raise RuntimeError("no C++ compiler was found\nand more")

        return fail

    monkeypatch.setattr(torch, "compile", compile_nothing)
    words = [*WORDS, "--kernels", "inductor", "--threads", "1", "--results-dir", str(tmp_path)]
    assert main(words) == 2
    assert capsys.readouterr().err == (
        "mnist-bench: error: --kernels inductor cannot be used: RuntimeError: no C++ compiler was "
        "found; use --kernels auto\n"
    )
    assert not list(tmp_path.rglob("*.json"))
