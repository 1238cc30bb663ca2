"""What will be timed against the judge: on a CPU in bf16, which is another computation as well."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from bench.cli import main
from bench.records.schema import ParityCheck
from mnist_cnn import batches, parity
from mnist_cnn.augment import augment
from mnist_cnn.batch_norm import GroupedBatchNorm2d
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine import eager, torch_program
from mnist_cnn.engine.capture import without_capture
from mnist_cnn.engine.ema import WeightEma
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.step import NativeStep, TorchStep
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.evaluation import count
from mnist_cnn.kernels import native
from mnist_cnn.model import MnistCnn
from mnist_cnn.optim import build_schedule
from mnist_cnn.parity import ALLOWED, Parity, compare_with_cpu
from mnist_cnn.parity_steps import JudgedSteps, probed_data, probed_recipe
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE, Kernels, Recipe
from mnist_cnn.sampler import EpochDraw, HardExampleSampler
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


@pytest.fixture(scope="module")
def judged_once(mnist: MnistData) -> JudgedSteps:
    """The judge's steps of `PLAIN`, by the right code: they are the same for every fault."""
    context = TrainingContext(PLAIN, cast(Accelerator, SimpleNamespace(num_processes=1)))
    recipe = probed_recipe(context, is_fixed=False)
    return JudgedSteps(recipe, probed_data(mnist.split("test"), recipe), 1)


@pytest.fixture
def judged(judged_once: JudgedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    """They take half of a comparison's time."""
    monkeypatch.setattr(parity, "JudgedSteps", lambda *_: judged_once)


def few(mnist: MnistData) -> Split:
    """Captured code evaluates all images: here there are few."""
    data = mnist.split("test")
    images, labels = data.evaluation_images[:500], data.evaluation_labels[:500]
    return replace(data, evaluation_images=images, evaluation_labels=labels)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", ["torch", *KINDS])
def test_rounding_is_allowed_for(mnist: MnistData, kernels: Kernels) -> None:
    found = probed(mnist, kernels=kernels)
    assert found.problem is None
    # It has compared something, and with room to spare.
    assert 1e-4 < found.gradient < ALLOWED["bf16"] / 2
    assert ParityCheck(**asdict(found)).gradient == found.gradient


@pytest.mark.slow
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_either_layout_and_the_references_distortions_are_alike(
    mnist: MnistData, layout: Any
) -> None:
    assert probed(mnist, replace(REFERENCE, memory_format=layout)).problem is None


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, FAST_GPU.epochs])
def test_other_algorithms_in_fp32_are_allowed_for(epochs: int, mnist: MnistData) -> None:
    """Convolutions for channels last round otherwise, which three steps of large rates multiply."""
    recipe = replace(FAST_GPU.with_epochs(epochs), memory_format="channels_last")
    context = TrainingContext(recipe, Accelerator(cpu=True, mixed_precision="no"))
    found = compare_with_cpu(context, few(mnist), "fp32", GraphCache(context, without_capture))
    assert found is not None
    assert found.problem is None
    assert found.gradient < ALLOWED["fp32"] / 2
    assert found.weights < 2 * ALLOWED["fp32"]


def test_the_cpu_is_not_compared_with_itself(mnist: MnistData) -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    context = TrainingContext(PLAIN, accelerator)
    assert compare_with_cpu(context, mnist.split("test"), "fp32") is None


@pytest.mark.slow
def test_captured_steps_on_the_cpu_are_the_judges(mnist: MnistData) -> None:
    """Torch's operators and optimizer, in the judge's precision: nothing but sums differ."""
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    context = TrainingContext(replace(FAST_GPU, memory_format="contiguous"), accelerator)
    graphs = GraphCache(context, without_capture)
    found = compare_with_cpu(context, few(mnist), "fp32", graphs)
    assert found is not None
    assert found.problem is None
    assert found.selection == 0
    values = asdict(found)
    for name in ("gradient", "parameter_gradient", "step", "weights", "average", "statistics"):
        assert values[name] < 1e-3, name


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


@pytest.mark.slow
def test_a_wrong_gradient_of_batch_norm_is_found_and_named(
    mnist: MnistData, spoil: Callable[[float], None]
) -> None:
    spoil(0.7)
    found = probed(mnist)
    assert found.loss < 0.05
    assert found.problem is not None
    assert found.problem.startswith(f"the gradient of {found.parameter} is ")
    assert found.problem.endswith("% off the CPU's, where 50% is allowed")


@pytest.mark.slow
def test_what_is_no_number_is_found(mnist: MnistData, spoil: Callable[[float], None]) -> None:
    spoil(float("nan"))
    assert "nan% off" in str(probed(mnist).problem)


@pytest.mark.slow
def test_images_distorted_otherwise_are_found(
    mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a device does that reads the first row of a table for every other."""
    right, calls = augment, []

    def first_row(images: Tensor, distortions: Any, recipe: Recipe) -> Tensor:
        calls.append(distortions)
        if len(calls) > 2:  # the CPU's two batches come first
            distortions = distortions[torch.zeros(len(images), dtype=torch.int64)]
        return right(images, distortions, recipe)

    monkeypatch.setattr(batches, "augment", first_row)
    assert str(probed(mnist, REFERENCE).problem).startswith("the images of a batch is ")


def without_effect(*_: object, **__: object) -> None:
    """In place of a function that should have one."""


def too_fast(optimizer: Any, recipe: Recipe, steps: int) -> Any:
    rate = 1000 * recipe.peak_learning_rate
    return build_schedule(optimizer, replace(recipe, peak_learning_rate=rate), steps)


def without_momentum(optimizer: Any, recipe: Recipe, steps: int) -> Any:
    for group in optimizer.param_groups:
        group["momentum"] = 0.0
    return build_schedule(optimizer, recipe, steps)


def easiest(sampler: HardExampleSampler, draw: EpochDraw) -> Tensor:
    losses = sampler.losses
    sampler.losses = -losses
    order = ORDER(sampler, draw)
    sampler.losses = losses
    return order


def rolled(sampler: HardExampleSampler, order: Tensor, indices: Tensor, losses: Tensor) -> None:
    END_EPOCH(sampler, order, indices.roll(1), losses)


def copies(average: WeightEma) -> None:
    torch._foreach_copy_(average._averaged, average._trained)


def others_labels(model: Any, images: Tensor, labels: Tensor, *rest: Any) -> Tensor:
    return count(model, images, (labels + 1) % 10, *rest)


ORDER, END_EPOCH = HardExampleSampler.order, HardExampleSampler.end_epoch
FAULTS = {
    "the learning rate": (eager, "build_schedule", too_fast, "the length of an optimizer step"),
    "no momentum": (eager, "build_schedule", without_momentum, "the length of an optimizer step"),
    "the easiest images": (HardExampleSampler, "order", easiest, "the choice of images"),
    "losses of other images": (HardExampleSampler, "end_epoch", rolled, "the loss of single"),
    "no average": (WeightEma, "after_step", without_effect, "the average of the weights"),
    "an average of one": (WeightEma, "after_step", copies, "the average of the weights"),
    "stale statistics": (eager, "measure_statistics", without_effect, "what batch norm knows"),
    "others' labels": (eager, "count", others_labels, "the evaluation"),
}


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [pytest.param("torch", marks=pytest.mark.slow), *KINDS[:1]])
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.usefixtures("judged")
def test_a_part_that_is_wrong_is_found_and_named(
    fault: str, kernels: Kernels, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, wrong, part = FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    found = probed(mnist, kernels=kernels)
    assert str(found.problem).startswith(part), found


@pytest.mark.slow
@pytest.mark.parametrize("kernels", [pytest.param("torch", marks=pytest.mark.thorough), *KINDS[:1]])
@pytest.mark.parametrize("name", [name for name, _ in MnistCnn().named_parameters()])
@pytest.mark.usefixtures("judged")
def test_a_wrong_gradient_of_any_layer_is_found_and_named(
    name: str, kernels: Kernels, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its sign: each parameter's gradient is at least a twentieth of the whole one."""
    sizes = {key: parameter.numel() for key, parameter in MnistCnn().named_parameters()}
    start = sum(list(sizes.values())[: list(sizes).index(name)])
    kind = TorchStep if kernels == "torch" else NativeStep
    right = kind.__call__

    def wrong(step: Any, batch: Any) -> Tensor:
        losses = right(step, batch)
        parameters = [p for group in step.optimizer.param_groups for p in group["params"]]
        gradient = torch.cat([p.grad.flatten() for p in parameters])
        gradient[start : start + sizes[name]] *= -1
        split = gradient.split([p.numel() for p in parameters])
        for parameter, part in zip(parameters, split, strict=True):
            parameter.grad.copy_(part.view_as(parameter))
        return losses

    monkeypatch.setattr(kind, "__call__", wrong)
    found = probed(mnist, kernels=kernels)
    assert str(found.problem).startswith(f"the gradient of {name} is "), found


GRAPH_FAULTS = {
    "no average": (torch_program._GraphEma, "follow", without_effect, "the average of the weights"),
    "stale statistics": (TorchProgram, "take_statistics", without_effect, "what batch norm knows"),
    "others' labels": (torch_program, "count", others_labels, "the evaluation"),
}


@pytest.mark.slow
@pytest.mark.parametrize(
    "fault",
    [
        None,
        pytest.param("stale statistics", marks=pytest.mark.thorough),
        pytest.param("no average", marks=pytest.mark.thorough),
        pytest.param("others' labels", marks=pytest.mark.thorough),
    ],
)
def test_the_very_programs_that_are_captured_are_compared(
    fault: str | None, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    accelerator = Accelerator(cpu=True, mixed_precision="bf16", dynamo_backend="no")
    context = TrainingContext(replace(FAST_GPU, memory_format="contiguous"), accelerator)
    graphs = GraphCache(context, without_capture)
    if fault is not None:
        owner, name, wrong, part = GRAPH_FAULTS[fault]
        monkeypatch.setattr(owner, name, wrong)
    found = compare_with_cpu(context, few(mnist), "bf16", graphs)
    assert found is not None
    if fault is None:
        assert found.problem is None
    else:
        assert str(found.problem).startswith(part), found


@pytest.mark.slow
def test_nothing_is_timed_on_a_device_that_computes_something_else(
    spoil: Callable[[float], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    spoil(-1.0)
    options = ["--recipe", "fast", "--device", "cpu", "--precision", "bf16", "--kernels", "torch"]
    options += ["--threads", "1"]
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
