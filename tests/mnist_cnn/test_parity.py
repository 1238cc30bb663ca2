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
from mnist_cnn.engine import eager, graph, torch_program
from mnist_cnn.engine.capture import Capture, Replay, without_capture
from mnist_cnn.engine.ema import WeightEma
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.step import NativeStep, TorchStep
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.evaluation import count
from mnist_cnn.kernels import native
from mnist_cnn.model import MnistCnn
from mnist_cnn.optim import build_schedule, learning_rates
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
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[] if number % 3 == 0 else pytest.mark.thorough)
        for number, (name, _) in enumerate(MnistCnn().named_parameters())
    ],
)
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


class Recorded:
    """Captures by running the work; several steps in one graph are replayed by `several`.

    Args:
        monkeypatch: counts the steps of the work.
        several: replays work of several steps.
    """

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, several: Callable[[Callable[[], None]], None]
    ) -> None:
        self.trained: list[int] = []
        self.several = several
        right = TorchProgram.train

        def train(program: TorchProgram, size: int) -> None:
            self.trained.append(size)
            right(program, size)

        monkeypatch.setattr(TorchProgram, "train", train)

    def __call__(self, work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
        self.trained.clear()
        rewind()
        work()
        if len(self.trained) > 1:
            return lambda: self.several(work)
        return work


SMALL_BATCHES = replace(FAST_GPU, batch_size=32, memory_format="contiguous")


@pytest.fixture(scope="module")
def graphs_judged_once(mnist: MnistData) -> JudgedSteps:
    """The judge's steps of `SMALL_BATCHES`, by the right code."""
    context = TrainingContext(SMALL_BATCHES, cast(Accelerator, SimpleNamespace(num_processes=1)))
    recipe = probed_recipe(context, is_fixed=True)
    return JudgedSteps(recipe, probed_data(few(mnist), recipe), 1)


@pytest.fixture
def graphs_judged(graphs_judged_once: JudgedSteps, monkeypatch: pytest.MonkeyPatch) -> None:
    """See `judged`."""
    monkeypatch.setattr(parity, "JudgedSteps", lambda *_: graphs_judged_once)


def with_graphs(mnist: MnistData, capture: Capture) -> Parity:
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    context = TrainingContext(SMALL_BATCHES, accelerator)
    found = compare_with_cpu(context, few(mnist), "fp32", GraphCache(context, capture))
    assert found is not None
    return found


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_judged")
@pytest.mark.parametrize(("dropout", "settled"), [(0.0, 1), (0.1, 0)])
def test_captured_code_that_was_not_compared_may_still_be_replaced(
    dropout: float, settled: int, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where there is dropout the eager steps are compared, and nothing is captured yet."""
    calls: list[GraphCache] = []

    def settle(graphs: GraphCache) -> None:
        calls.append(graphs)

    monkeypatch.setattr(GraphCache, "settle", settle)
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    context = TrainingContext(replace(SMALL_BATCHES, dropout=dropout), accelerator)
    found = compare_with_cpu(context, few(mnist), "fp32", GraphCache(context, without_capture))
    assert found is None or found.problem is None
    assert len(calls) == settled


def too_fast_rates(recipe: Recipe, steps: int) -> Any:
    return 1000 * learning_rates(recipe, steps)


def wrong_sign(index: int) -> Callable[..., None]:
    """A step of the optimizer with the gradient of one parameter turned round."""
    right: Callable[..., None] = torch.optim.SGD.step

    def step(optimizer: torch.optim.SGD) -> None:
        optimizer.param_groups[0]["params"][index].grad.neg_()
        right(optimizer)

    return step


GRAPH_FAULTS = {
    "the learning rate": (graph, "learning_rates", too_fast_rates, "the length of an optimizer"),
    "the easiest images": (HardExampleSampler, "order", easiest, "the choice of images"),
    "losses of other images": (HardExampleSampler, "end_epoch", rolled, "the loss of single"),
    "the first gradient": (torch.optim.SGD, "step", wrong_sign(0), "the gradient of "),
    "the last gradient": (torch.optim.SGD, "step", wrong_sign(-1), "the gradient of "),
    "no average": (torch_program._GraphEma, "follow", without_effect, "the average of the weights"),
    "stale statistics": (TorchProgram, "take_statistics", without_effect, "what batch norm knows"),
    "others' labels": (torch_program, "count", others_labels, "the evaluation"),
}


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_judged")
@pytest.mark.parametrize(
    "fault",
    [
        # Those of the images' choice are of code that all engines share.
        pytest.param(fault, marks=pytest.mark.thorough if "images" in fault else ())
        for fault in GRAPH_FAULTS
    ],
)
def test_the_very_programs_that_are_captured_are_compared(
    fault: str, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner, name, wrong, part = GRAPH_FAULTS[fault]
    monkeypatch.setattr(owner, name, wrong)
    found = with_graphs(mnist, without_capture)
    assert str(found.problem).startswith(part), found


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_judged")
def test_captured_steps_on_the_cpu_are_the_judges(
    mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Torch's operators and optimizer, in the judge's precision: nothing but sums differ."""
    recorded = Recorded(monkeypatch, lambda work: work())
    found = with_graphs(mnist, without_capture)
    assert len(recorded.trained) == 4, "one to try them; graphs of one step are not compared"
    assert found.problem is None
    assert found.selection == 0
    values = asdict(found)
    for name in ("gradient", "parameter_gradient", "step", "average", "statistics"):
        assert values[name] < 1e-3, name
    assert found.weights < 1e-2  # each step multiplies what differs


def one_step_eight_times(work: Callable[[], None]) -> None:
    """As a graph does that has the position of its first step in all of them."""
    right = Tensor.add_
    with pytest.MonkeyPatch.context() as patch:

        def add(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
            return tensor if tensor.dtype == torch.int64 else right(tensor, *args, **options)

        patch.setattr(Tensor, "add_", add)
        work()


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_judged")
def test_steps_that_a_graph_replays_together_are_those_replayed_one_by_one(
    mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = with_graphs(mnist, Recorded(monkeypatch, lambda work: work()))
    assert found.problem is None
    assert found.graphs == 0


@pytest.mark.slow
@pytest.mark.usefixtures("graphs_judged")
@pytest.mark.parametrize(
    "several", [lambda _: None, one_step_eight_times], ids=["nothing", "one step eight times"]
)
def test_a_graph_of_several_steps_that_does_something_else_is_found(
    several: Callable[[Callable[[], None]], None],
    mnist: MnistData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    found = with_graphs(mnist, Recorded(monkeypatch, several))
    assert str(found.problem).startswith("what several steps at once train is "), found


@pytest.mark.slow
@pytest.mark.parametrize("is_right", [True, False])
def test_code_for_a_smaller_last_batch_is_compared(
    is_right: bool, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = replace(FAST_GPU, selected_share=1.0, batch_size=56)
    right, sizes = TorchProgram.train, set[int]()

    def train(program: TorchProgram, size: int) -> None:
        sizes.add(size)
        if is_right or size == recipe.batch_size:
            right(program, size)

    monkeypatch.setattr(TorchProgram, "train", train)
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    context = TrainingContext(replace(recipe, memory_format="contiguous"), accelerator)
    found = compare_with_cpu(context, few(mnist), "fp32", GraphCache(context, without_capture))
    assert found is not None
    assert sizes == {56, recipe.train_images % 56}
    if is_right:
        assert found.problem is None
        assert found.last_batch < 1e-3
    else:
        assert str(found.problem).startswith("what a smaller last batch trains is 100%"), found


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
