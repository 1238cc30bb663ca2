"""What a run computes with, decided from the machine and its environment."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bench.measure import plan
from bench.measure.request import ComputeRequest
from mnist_cnn.recipe import FAST


@pytest.mark.parametrize(
    ("found", "asked", "told"), [("hpu", "auto", "hpu"), ("hpu", "cpu", None), (None, "auto", None)]
)
def test_a_device_that_the_cpu_trains_in_place_of_is_named(
    found: str | None, asked: str, told: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("ACCELERATE_USE_CPU", raising=False)
    compute = ComputeRequest(device="cpu", kernels="torch", threads=1)
    chosen = plan.resolve_plan(FAST, compute)
    device = None if found is None else torch.device(found)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: device)
    assert plan.unsupported_device(chosen, replace(compute, device=asked)) == told
