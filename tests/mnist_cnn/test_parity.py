"""The probe of a device against the CPU: on a CPU in bf16, which is another computation as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from bench.cli import main
from bench.records.schema import ParityCheck
from mnist_cnn import batches
from mnist_cnn.augment import augment
from mnist_cnn.batch_norm import GroupedBatchNorm2d
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.kernels import native
from mnist_cnn.parity import ALLOWED, Parity, compare_with_cpu
from mnist_cnn.recipe import FAST, REFERENCE, Kernels, Recipe
from tests.factories import make_record

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
PLAIN = replace(FAST, memory_format="contiguous")
KINDS: list[Kernels] = [kind for kind in native.FAST_KINDS if not native.unavailable_reason(kind)]


def probed(mnist: MnistData, recipe: Recipe = PLAIN, kernels: Kernels = "torch") -> Parity:
    accelerator = Accelerator(cpu=True, mixed_precision="bf16", dynamo_backend="no")
    context = TrainingContext(recipe, accelerator, kernels)
    found = compare_with_cpu(context, mnist.split("test"), "bf16")
    assert found is not None
    return found


@pytest.mark.parametrize("kernels", ["torch", *KINDS])
def test_rounding_is_allowed_for(mnist: MnistData, kernels: Kernels) -> None:
    found = probed(mnist, kernels=kernels)
    assert found.problem is None
    # It has compared something, and with room to spare.
    assert 1e-4 < found.gradient < ALLOWED["bf16"] / 2
    assert ParityCheck(**asdict(found)).gradient == found.gradient


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_either_layout_and_the_references_distortions_are_alike(
    mnist: MnistData, layout: Any
) -> None:
    assert probed(mnist, replace(REFERENCE, memory_format=layout)).problem is None


def test_the_cpu_is_not_compared_with_itself(mnist: MnistData) -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    context = TrainingContext(PLAIN, accelerator)
    assert compare_with_cpu(context, mnist.split("test"), "fp32") is None


class Spoilt(torch.autograd.Function):
    """Its input, with another gradient than that."""

    @staticmethod
    def forward(context: Any, values: Tensor, factor: float) -> Tensor:
        context.factor = factor
        return values.clone()

    @staticmethod
    def backward(context: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * context.factor, None


@pytest.fixture
def spoil(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Give the step's batch norm gradients that are so many times the right ones.

    The judge has ordinary layers.
    """
    right = GroupedBatchNorm2d.forward

    def spoil(factor: float) -> None:
        def wrong(layer: GroupedBatchNorm2d, images: Tensor) -> Tensor:
            return cast(Tensor, cast(Any, Spoilt.apply)(right(layer, images), factor))

        monkeypatch.setattr(GroupedBatchNorm2d, "forward", wrong)

    return spoil


def test_a_wrong_gradient_of_batch_norm_is_found_and_named(
    mnist: MnistData, spoil: Callable[[float], None]
) -> None:
    spoil(0.7)
    found = probed(mnist)
    assert found.loss < 0.01
    assert found.problem is not None
    assert found.problem.startswith(f"the gradient of {found.parameter} is ")
    assert found.problem.endswith("% off the CPU's, where 50% is allowed")


def test_what_is_no_number_is_found(mnist: MnistData, spoil: Callable[[float], None]) -> None:
    spoil(float("nan"))
    assert "nan% off" in str(probed(mnist).problem)


def test_images_distorted_otherwise_are_found(
    mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a device does that reads the first row of a table for every other."""
    right, calls = augment, []

    def first_row(images: Tensor, distortions: Any, recipe: Recipe) -> Tensor:
        calls.append(distortions)
        if len(calls) <= 2:  # the device's two batches come before the CPU's
            distortions = distortions[torch.zeros(len(images), dtype=torch.int64)]
        return right(images, distortions, recipe)

    monkeypatch.setattr(batches, "augment", first_row)
    assert str(probed(mnist, REFERENCE).problem).startswith("the images of a batch is ")
    assert len(calls) == 4


def test_nothing_is_timed_on_a_device_that_computes_something_else(
    spoil: Callable[[float], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spoil(-1.0)
    options = ["--recipe", "fast", "--device", "cpu", "--precision", "bf16", "--kernels", "torch"]
    assert main(["run", *options, "--quiet", "--results-dir", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("mnist-bench: error: torch in bf16 on cpu does not compute this network")
    assert line.endswith("; use --precision fp32")
    assert not list(tmp_path.rglob("*.json"))


def test_older_records_have_none() -> None:
    record = make_record()
    values = record.model_dump(mode="json") | {"schema_version": 6}
    del values["parity"], values["all_reduce_seconds"]
    assert type(record).model_validate(values).parity is None
    check = dict.fromkeys(("images", "loss", "gradient", "parameter_gradient", "allowed"), 0.1)
    with pytest.raises(ValueError, match="parity is not a field of schema_version 6"):
        type(record).model_validate(values | {"parity": check | {"parameter": "stem"}})
