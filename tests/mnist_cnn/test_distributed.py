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


Gradients = dict[str, list[Tensor]]
"""Of the whole batch and of the short one, by case."""


@pytest.fixture(scope="module")
def gradients(
    tmp_path_factory: pytest.TempPathFactory, mnist_data_dir: Path
) -> tuple[Gradients, Gradients]:
    """Those of one process and those of two."""
    del mnist_data_dir  # filled
    path = tmp_path_factory.mktemp("gradients") / "gradients.pt"
    cases = [*(f"{kernels}:16" for kernels in KINDS), "torch:0"]
    by_ranks: list[Gradients] = []
    for ranks in (1, 2):
        assert supervise([sys.executable, str(DRIVER), str(path), *cases], ranks, threads=1) == 0
        by_ranks.append(torch.load(path, weights_only=True))
    return by_ranks[0], by_ranks[1]


def differences(gradients: tuple[Gradients, Gradients], case: str) -> list[float]:
    """Of the whole batch and of the short one, as shares of one process's gradient."""
    alone, shared = gradients
    pairs = zip(alone[case], shared[case], strict=True)
    return [float((one - two).norm() / one.norm()) for one, two in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("kernels", KINDS)
def test_gradients_are_those_of_one_process(
    gradients: tuple[Gradients, Gradients], kernels: str
) -> None:
    """Batch norm in groups: what they are does not depend on the number of processes."""
    assert max(differences(gradients, f"{kernels}:16")) < FP32


@pytest.mark.slow
def test_batch_norm_over_a_processs_share_is_another_training(
    gradients: tuple[Gradients, Gradients],
) -> None:
    """Of a recipe without groups, as its field says; or the test above would prove nothing."""
    assert min(differences(gradients, "torch:0")) > 100 * FP32
