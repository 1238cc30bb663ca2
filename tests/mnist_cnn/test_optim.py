"""The optimizers are torch's, without the import of its compiler."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
import torch
from torch import nn

from mnist_cnn.optim import build_optimizer
from mnist_cnn.recipe import FAST, REFERENCE, Recipe

ROOT = Path(__file__).resolve().parents[2]


def plain(parameters: Iterable[nn.Parameter], recipe: Recipe) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        return torch.optim.Adam(
            parameters,
            lr=recipe.peak_learning_rate,
            betas=(recipe.momentum, 0.999),
            weight_decay=recipe.weight_decay,
        )
    return torch.optim.SGD(
        parameters,
        lr=recipe.peak_learning_rate,
        momentum=recipe.momentum,
        nesterov=True,
        weight_decay=recipe.weight_decay,
    )


@pytest.mark.parametrize("recipe", [FAST, REFERENCE], ids=lambda recipe: recipe.optimizer)
def test_the_steps_are_torchs(recipe: Recipe) -> None:
    ends = []
    for build in (build_optimizer, plain):
        torch.manual_seed(0)
        model = nn.Linear(5, 3)
        optimizer = build(model.parameters(), recipe)
        for _ in range(4):
            model(torch.randn(7, 5)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
            assert all(parameter.grad is None for parameter in model.parameters())
        ends.append([parameter.detach().clone() for parameter in model.parameters()])
    for ours, torchs in zip(*ends, strict=True):
        assert torch.allclose(ours, torchs, atol=1e-6)


@pytest.mark.slow
def test_a_step_does_not_import_torchs_compiler() -> None:
    code = (
        "import sys, torch\n"
        "from mnist_cnn.optim import build_optimizer, build_schedule\n"
        "from mnist_cnn.recipe import FAST\n"
        "model = torch.nn.Linear(2, 2)\n"
        "optimizer = build_optimizer(model.parameters(), FAST)\n"
        "schedule = build_schedule(optimizer, FAST, 10)\n"
        "model(torch.ones(1, 2)).sum().backward()\n"
        "optimizer.step(); schedule.step(); optimizer.zero_grad()\n"
        "print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "False\n"
