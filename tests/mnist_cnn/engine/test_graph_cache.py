"""What trains where kernels cannot be compiled, captured or run on a device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine.capture import Replay, without_capture
from mnist_cnn.engine.graph_cache import Alternatives, GraphCache
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels.triton.shapes import SHAPES, halved
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST_GPU
from mnist_cnn.train import TrainingOptions, seeded_model, train

pytest.importorskip("triton", reason="the package triton is not installed")
from triton.runtime.errors import OutOfResources, PTXASError

RECIPE = replace(FAST_GPU.with_epochs(1), batch_size=64, memory_format="contiguous")
ANY = Alternatives(kernels=True, capture=True)


@pytest.fixture
def context() -> TrainingContext:
    return TrainingContext(RECIPE, Accelerator(cpu=True), "triton")


def trained(context: TrainingContext, graphs: GraphCache | None, mnist: MnistData) -> MnistCnn:
    data = Split(
        mnist.train_images[:128],
        mnist.train_labels[:128],
        mnist.test_images[:64],
        mnist.test_labels[:64],
    )
    model = seeded_model(RECIPE, 0)
    for _ in train(model, context, data, 0, TrainingOptions(graphs=graphs)):
        pass
    return model


def is_by_torch(model: MnistCnn, context: TrainingContext, mnist: MnistData) -> bool:
    other = trained(replace(context, kernels="torch"), None, mnist)
    pairs = zip(model.parameters(), other.parameters(), strict=True)
    return all(torch.equal(ours, theirs) for ours, theirs in pairs)


def capture_of(calls: list[str]) -> Callable[[Callable[[], None], Callable[[], None]], Replay]:
    """A capture that replays by running the work, and notes itself."""

    def capture(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
        calls.append("captured")
        rewind()
        work()
        return work

    return capture


def failing(*errors: Exception) -> tuple[Callable[..., Any], list[Any]]:
    """A program that fails with each of the errors in turn, then is torch's; and its shapes."""
    left, shapes = list(errors), []

    def make(context: TrainingContext, buffers: Any, tried: Any) -> Any:
        shapes.append(tried)
        if left:
            raise left.pop(0)
        return TorchProgram(replace(context, kernels="torch"), buffers)

    return make, shapes


@pytest.mark.slow
def test_without_a_driver_torch_trains(context: TrainingContext, mnist: MnistData) -> None:
    """Triton's own failure on a machine that has no GPU."""
    if torch.cuda.is_available():
        pytest.skip("there is a driver")
    graphs = GraphCache(context, without_capture, ANY)
    model = trained(context, graphs, mnist)
    (failed,) = graphs.failures
    assert failed.code.kernels == "triton"
    assert "driver" in failed.reason
    assert graphs.code.kernels == "torch"
    assert is_by_torch(model, context, mnist)


def test_what_was_asked_for_by_name_is_refused_with_its_reason(
    context: TrainingContext, mnist: MnistData
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a driver")
    graphs = GraphCache(context, without_capture, Alternatives(capture=True))
    with pytest.raises(UsageError, match=r"--kernels triton cannot be used: .*driver.*auto"):
        trained(context, graphs, mnist)


@pytest.mark.slow
def test_too_little_shared_memory_takes_smaller_shapes(
    context: TrainingContext, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, shapes = failing(OutOfResources(75_776, 65_536, "shared memory"))
    monkeypatch.setattr("mnist_cnn.kernels.triton.network.TritonProgram", make)
    graphs = GraphCache(context, without_capture, ANY)
    trained(context, graphs, mnist)
    trained(context, graphs, mnist)  # a later run takes what worked
    assert shapes == [SHAPES, halved(SHAPES)]
    assert graphs.code.kernels == "triton"
    assert graphs.code.shapes == halved(SHAPES)
    (failed,) = graphs.failures
    assert "shared memory, Required: 75776, Hardware limit: 65536" in failed.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "errors",
    [
        [PTXASError("ptxas fatal: sm_999 is not defined")],
        [OSError("cannot execute ptxas")],
        [OutOfResources(99, 9, "registers"), OutOfResources(88, 9, "registers")],
    ],
)
def test_other_failures_take_captured_operators(
    errors: list[Exception],
    context: TrainingContext,
    mnist: MnistData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, _ = failing(*errors)
    monkeypatch.setattr("mnist_cnn.kernels.triton.network.TritonProgram", make)
    calls: list[str] = []
    graphs = GraphCache(context, capture_of(calls), ANY)
    model = trained(context, graphs, mnist)
    assert calls
    assert (graphs.code.kernels, graphs.code.is_captured) == ("torch", True)
    assert [failed.reason.partition(":")[0] for failed in graphs.failures] == [
        type(error).__name__ for error in errors
    ]
    assert is_by_torch(model, context, mnist)


@pytest.mark.slow
def test_at_last_nothing_is_captured(context: TrainingContext, mnist: MnistData) -> None:
    def refuse(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = GraphCache(context, refuse, ANY)
    model = trained(context, graphs, mnist)
    tried = [(failed.code.kernels, failed.code.is_captured) for failed in graphs.failures]
    assert tried == [("triton", True), ("torch", True)]
    assert not graphs.code.is_captured
    assert is_by_torch(model, context, mnist)


def test_a_capture_that_was_asked_for_is_not_given_up(
    context: TrainingContext, mnist: MnistData
) -> None:
    def refuse(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
        raise RuntimeError("operation not permitted when stream is capturing")

    graphs = GraphCache(context, refuse, Alternatives(kernels=True))
    with pytest.raises(UsageError, match=r"--capture is not possible: .*not permitted.*out"):
        trained(context, graphs, mnist)


def test_a_device_that_is_full_is_no_fault_of_the_kernels(
    context: TrainingContext, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    make, _ = failing(torch.OutOfMemoryError("CUDA out of memory"))
    monkeypatch.setattr("mnist_cnn.kernels.triton.network.TritonProgram", make)
    graphs = GraphCache(context, without_capture)
    with pytest.raises(torch.OutOfMemoryError):
        trained(context, graphs, mnist)


def test_halved_shapes_take_half_the_pixels_but_enough_for_a_product() -> None:
    for kernel, by_side in halved(SHAPES).items():
        for side, shape in by_side.items():
            assert shape.pixels == max(16, SHAPES[kernel][side].pixels // 2)
