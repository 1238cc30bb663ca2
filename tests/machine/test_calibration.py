"""The calibration is fixed work and leaves torch as it was. Its rate is no subject of a test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from bench.analysis.machine_differences import LEAST_CALIBRATION_DIFFERENCE
from bench.machine import calibration
from bench.machine.calibration import measure_calibration

SECONDS = calibration.MEASURING_SECONDS


@pytest.fixture(autouse=True)
def _short_and_of_two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(calibration, "MEASURING_SECONDS", 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_the_work_is_named_and_torch_is_left_as_it_was() -> None:
    state = torch.get_rng_state()
    found = measure_calibration("cpu")
    assert found.work == "fp32 product of 512 x 512 matrices on cpu, 1 thread"
    assert found.flops_per_second > 0
    assert found.seconds > 0
    assert torch.get_num_threads() == 2
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.is_grad_enabled()


def test_other_work_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert measure_calibration("cpu").work.endswith("on cpu, 1 thread")
    assert measure_calibration("cpu", 2).work.endswith("1 thread, 2 processes at a time")
    monkeypatch.setattr(torch, "get_float32_matmul_precision", lambda: "high")
    assert measure_calibration("cpu").work.endswith("1 thread, matmul precision high")


def test_the_protocol_says_what_is_done() -> None:
    text = " ".join(Path("docs/protocol.md").read_text(encoding="utf-8").split())
    cpu, gpu = calibration.CPU_SIDE, calibration.GPU_SIDE
    assert f"{cpu} x {cpu} on a CPU and {gpu} x {gpu} elsewhere" in text
    assert f"repeated for {SECONDS} s; the fastest product counts" in text
    assert f"differ by more than {LEAST_CALIBRATION_DIFFERENCE:.0%}".replace("%", " %") in text


def test_threads_are_restored_after_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(torch, "mm", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        measure_calibration("cpu")
    assert torch.get_num_threads() == 2
