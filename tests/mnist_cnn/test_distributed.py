"""Two real processes against one: the gradients of the same global batch."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.launch.supervisor import supervise
from mnist_cnn.kernels import native

DRIVER = Path(__file__).resolve().parents[1] / "stand_ins" / "gradient_driver.py"
FP32 = 1e-5
"""Of a gradient's length: sums in another order."""
KINDS = ["torch", *(kind for kind in native.KINDS if not native.unavailable_reason(kind))]


def gradients(folder: Path, ranks: int, kernels: str, group: int) -> list[Tensor]:
    path = folder / f"{ranks}.pt"
    command = [sys.executable, str(DRIVER), kernels, str(group), str(path)]
    assert supervise(command, ranks, threads=1) == 0
    found: list[Tensor] = torch.load(path, weights_only=True)
    return found


def differences(folder: Path, kernels: str, group: int) -> list[float]:
    """Of the whole batch and of the short one, as shares of one process's gradient."""
    pairs = zip(
        gradients(folder, 1, kernels, group), gradients(folder, 2, kernels, group), strict=True
    )
    return [float((one - two).norm() / one.norm()) for one, two in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("kernels", KINDS)
def test_gradients_are_those_of_one_process(
    tmp_path: Path, mnist_data_dir: Path, kernels: str
) -> None:
    """Batch norm in groups: what they are does not depend on the number of processes."""
    del mnist_data_dir  # filled
    assert max(differences(tmp_path, kernels, 16)) < FP32


@pytest.mark.slow
def test_batch_norm_over_a_processs_share_is_another_training(
    tmp_path: Path, mnist_data_dir: Path
) -> None:
    """Of a recipe without groups, as its field says; or the test above would prove nothing."""
    del mnist_data_dir
    assert min(differences(tmp_path, "torch", 0)) > 100 * FP32
