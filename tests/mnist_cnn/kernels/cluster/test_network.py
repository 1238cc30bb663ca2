"""The CUDA kernels against torch's operators, without a GPU: the same source, threads as fibers."""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine import graph
from mnist_cnn.engine.capture import without_capture
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.events import EpochTrained, Evaluated
from mnist_cnn.kernels.buffers import DeviceBuffers
from mnist_cnn.kernels.cluster.launch import (
    KERNELS,
    EvaluationArguments,
    StepArguments,
    UpdateArguments,
)
from mnist_cnn.kernels.cluster.network import ClusterProgram
from mnist_cnn.parity import compare_with_cpu
from mnist_cnn.recipe import FAST, Recipe
from mnist_cnn.train import TrainingOptions, seeded_model, train
from tests.mnist_cnn.kernels.cluster.emulation import EmulatedKernels
from tests.mnist_cnn.kernels.programs import (
    MakeProgram,
    Steps,
    Trained,
    check_against_torch,
    deviations,
    trained,
)

pytestmark = pytest.mark.slow
SMALL = replace(
    FAST, batch_size=6, norm_batch_size=3, memory_format="contiguous", label_smoothing=0.1
)
SIZES = (6, 5)
"""The second step's last group has a block without an image."""
MOST = 1e-3
"""Largest difference of a tensor's change from torch's, by the order of sums: 6e-5 was seen."""


@pytest.fixture(scope="module")
def exact(tmp_path_factory: pytest.TempPathFactory) -> EmulatedKernels:
    return EmulatedKernels(tmp_path_factory.mktemp("emulated"), exact=True)


@pytest.fixture(scope="module")
def rounded(tmp_path_factory: pytest.TempPathFactory) -> EmulatedKernels:
    return EmulatedKernels(tmp_path_factory.mktemp("emulated"), exact=False)


class _OnCpu:
    """An accelerator of a precision of its own: Accelerate keeps one for the whole process."""

    num_processes, process_index, scaler = 1, 0, None
    device = torch.device("cpu")

    def __init__(self, mixed_precision: str) -> None:
        self.mixed_precision = mixed_precision

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.mixed_precision == "bf16")


def by(kernels: EmulatedKernels) -> MakeProgram:
    def make_program(context: TrainingContext, buffers: DeviceBuffers) -> ClusterProgram:
        return ClusterProgram(context, buffers, kernels)

    return make_program


def small_steps(mnist: MnistData, precision: str = "no", recipe: Recipe = SMALL) -> Steps:
    accelerator = _OnCpu(precision)
    return Steps(recipe=recipe, accelerator=accelerator, mnist=mnist, sizes=SIZES, held_out=8)


def after_steps(make: MakeProgram, mnist: MnistData, precision: str = "no") -> Trained:
    return trained(make, small_steps(mnist, precision))


@pytest.mark.parametrize("group", [3, 2, 6])
def test_without_rounding_they_are_torchs_operators(
    group: int, exact: EmulatedKernels, mnist: MnistData
) -> None:
    steps = small_steps(mnist, recipe=replace(SMALL, norm_batch_size=group))
    check_against_torch(by(exact), steps, MOST)


def test_in_bf16_they_are_no_further_from_fp32_than_torch_is(
    rounded: EmulatedKernels, mnist: MnistData
) -> None:
    truth = after_steps(TorchProgram, mnist)
    ours = deviations(after_steps(by(rounded), mnist), truth)
    torchs = deviations(after_steps(TorchProgram, mnist, "bf16"), truth)
    mean_ours, mean_torchs = (sum(some.values()) / len(some) for some in (ours, torchs))
    print(f"mean deviation from fp32: ours {mean_ours:.3f}, torch's {mean_torchs:.3f}")
    assert mean_ours < 1.25 * mean_torchs


def test_steps_repeat_bit_for_bit_in_whatever_order_threads_run(
    rounded: EmulatedKernels, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A barrier that is missing shows: another thread's number is read too early or too late."""
    first = after_steps(by(rounded), mnist)
    for order in (0, 1, 2, 3):
        monkeypatch.setattr(rounded, "order", order)
        again = after_steps(by(rounded), mnist)
        assert torch.equal(again.buffers.totals, first.buffers.totals)
        for name, value in first.after.state_dict().items():
            assert torch.equal(again.after.state_dict()[name], value), (order, name)


def test_nan_in_a_weight_reaches_the_losses(exact: EmulatedKernels, mnist: MnistData) -> None:
    """A ReLU or a maximum of C's fmaxf would take the other number, and hide it."""
    done = after_steps(by(exact), mnist)
    for index in range(0, 21, 3):  # each layer's convolution
        model = seeded_model(SMALL, 0)
        with torch.no_grad():
            list(model.parameters())[index].view(-1)[0] = torch.nan
        done.program.load(model)
        done.buffers.step.zero_()
        done.buffers.position.zero_()
        done.program.train(6)
        assert done.buffers.losses[:6].isnan().all(), index
        done.program.store(model, averaged=False)
        assert all(p.isnan().any() for p in model.parameters()), index


@pytest.mark.parametrize(
    ("kernel", "arguments"),
    list(zip(KERNELS, (StepArguments, EvaluationArguments, UpdateArguments), strict=True)),
)
def test_arguments_are_as_large_as_those_of_the_source(
    kernel: str, arguments: type[ctypes.Structure], exact: EmulatedKernels
) -> None:
    size_for: Callable[[], int] = getattr(exact.library, f"size_for_{kernel}")
    assert size_for() == ctypes.sizeof(arguments)


def test_a_run_trains_by_them(
    rounded: EmulatedKernels, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Through the engine that drives them on a GPU; only the launch is another."""
    recipe = replace(SMALL, epochs=2, evaluate_from_epoch=2, statistics_images=16)
    accelerator = Accelerator(cpu=True)
    monkeypatch.setattr(graph, "CudaKernels", lambda _: rounded)
    data = Split(
        mnist.train_images[:120],
        mnist.train_labels[:120],
        mnist.test_images[:50],
        mnist.test_labels[:50],
    )
    context = TrainingContext(recipe, accelerator, "cluster")
    graphs = GraphCache(context, without_capture)
    options = TrainingOptions(graphs=graphs)
    events = list(train(seeded_model(recipe, 0), context, data, 0, options))
    losses = [event.loss for event in events if isinstance(event, EpochTrained)]
    assert len(losses) == 2
    assert all(map(math.isfinite, losses))
    assert any(isinstance(event, Evaluated) for event in events)


@pytest.mark.parametrize(
    "batch_size", [16, pytest.param(FAST.batch_size, marks=pytest.mark.thorough)]
)
def test_the_check_before_a_benchmark_accepts_them(
    batch_size: int, rounded: EmulatedKernels, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the groups that a GPU trains: clusters of sixteen blocks."""
    monkeypatch.setattr(graph, "CudaKernels", lambda _: rounded)
    data = mnist.split("test")
    images, labels = data.evaluation_images[:16], data.evaluation_labels[:16]
    data = replace(data, evaluation_images=images, evaluation_labels=labels)
    recipe = replace(FAST, batch_size=batch_size)
    context = TrainingContext(recipe, Accelerator(cpu=True), "cluster")
    parity = compare_with_cpu(context, data, "bf16", GraphCache(context, without_capture))
    assert parity is not None
    assert parity.problem is None
