"""Two real processes against one: they train the same global batches to the same network."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from bench.launch.supervisor import supervise
from mnist_cnn.kernels import native
from tests.shared import made_once

DRIVER = Path(__file__).resolve().parents[1] / "stand_ins" / "gradient_driver.py"
FP32 = 1e-5
"""Of a gradient's length: sums in another order."""
TORCH_FP32 = 1e-4
"""The same for torch's operators, which sum a weight's gradient over all images of a process."""
KINDS = ["torch", *(kind for kind in native.FAST_KINDS if not native.unavailable_reason(kind))]


EXACT = 1e-12
"""The same in float64."""
REFERENCE = "torch:reference:0"
CASES = [
    *(f"gradients:{kernels}:fast:16" for kernels in KINDS),
    *(f"{job}:{REFERENCE}" for job in ("exact", "steps", "train")),
    "exact:torch:reference:64",
    "exact:torch:fast:16",
]

Computed = dict[str, list[Tensor]]
"""What `gradient_driver` computed, by case."""


@pytest.fixture(scope="module")
def computed(
    tmp_path_factory: pytest.TempPathFactory, mnist_data_dir: Path
) -> tuple[Computed, Computed]:
    """What one process computes, and what two compute."""
    del mnist_data_dir  # filled

    def make(folder: Path) -> None:
        for ranks in (1, 2):
            command = [sys.executable, str(DRIVER), str(folder / f"{ranks}.pt"), *CASES]
            assert supervise(command, ranks, threads=1) == 0

    folder = made_once(tmp_path_factory, "gradients", make)
    one, two = (torch.load(folder / f"{ranks}.pt", weights_only=True) for ranks in (1, 2))
    return one, two


def differences(alone: list[Tensor], shared: list[Tensor]) -> list[float]:
    """Of each tensor, as shares of one process's."""
    pairs = zip(alone, shared, strict=True)
    return [float((one - two).norm() / one.norm()) for one, two in pairs]


@pytest.mark.slow
@pytest.mark.parametrize("kernels", KINDS)
def test_gradients_are_those_of_one_process(
    computed: tuple[Computed, Computed], kernels: str
) -> None:
    """Batch norm in groups: what they are does not depend on the number of processes."""
    alone, shared = (of_ranks[f"gradients:{kernels}:fast:16"] for of_ranks in computed)
    assert max(differences(alone, shared)) < (TORCH_FP32 if kernels == "torch" else FP32)


@pytest.mark.slow
def test_gradients_of_groups_are_exactly_those_of_one_process(
    computed: tuple[Computed, Computed],
) -> None:
    """In float64; the running statistics are each process's own until an evaluation."""
    alone, shared = (of_ranks["exact:torch:fast:16"][:2] for of_ranks in computed)
    assert max(differences(alone, shared)) < EXACT


@pytest.mark.slow
def test_batch_norm_without_groups_takes_the_batch_of_all_processes(
    computed: tuple[Computed, Computed],
) -> None:
    """The closed division's gradients and running statistics, of a whole and of a short batch."""
    alone, shared = (of_ranks[f"exact:{REFERENCE}"] for of_ranks in computed)
    assert len(alone) == 3
    assert max(differences(alone, shared)) < EXACT


@pytest.mark.slow
def test_steps_of_the_reference_lead_to_the_network_of_one_process(
    computed: tuple[Computed, Computed],
) -> None:
    """Adam divides by a gradient's size, so rounding grows from step to step."""
    alone, shared = (of_ranks[f"steps:{REFERENCE}"] for of_ranks in computed)
    assert max(differences(alone, shared)) < 1e4 * EXACT


@pytest.mark.slow
def test_a_short_training_of_the_reference_has_the_losses_of_one_process(
    computed: tuple[Computed, Computed],
) -> None:
    """By the loop itself, with its evaluation, in float32: Adam's first steps enlarge rounding."""
    alone, shared = (of_ranks[f"train:{REFERENCE}"] for of_ranks in computed)
    assert len(alone) == 2
    assert max(differences(alone, shared)) < 0.01


@pytest.mark.slow
def test_batch_norm_over_half_a_batch_is_another_training(
    computed: tuple[Computed, Computed],
) -> None:
    """What two processes would do if each normalised its share; or the tests above prove little."""
    alone, _ = computed
    halves = differences(alone[f"exact:{REFERENCE}"], alone["exact:torch:reference:64"])
    assert min(halves) > 1e-4
