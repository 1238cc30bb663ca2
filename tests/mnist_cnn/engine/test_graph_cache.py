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
from mnist_cnn.engine.capture import CaptureError, Replay, without_capture
from mnist_cnn.engine.graph_cache import NO_ALTERNATIVES, Alternatives, GraphCache
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
        raise CaptureError from RuntimeError("not permitted when stream is capturing")

    graphs = GraphCache(context, refuse, ANY)
    model = trained(context, graphs, mnist)
    tried = [(failed.code.kernels, failed.code.is_captured) for failed in graphs.failures]
    assert tried == [("triton", True), ("torch", True)]
    assert graphs.failures[1].reason == "RuntimeError: not permitted when stream is capturing"
    assert not graphs.code.is_captured
    assert is_by_torch(model, context, mnist)


def test_a_capture_that_was_asked_for_is_not_given_up(
    context: TrainingContext, mnist: MnistData
) -> None:
    def refuse(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
        raise CaptureError from RuntimeError("not permitted when stream is capturing")

    graphs = GraphCache(context, refuse, Alternatives(kernels=True))
    with pytest.raises(UsageError, match=r"--capture is not possible: .*not permitted.*out"):
        trained(context, graphs, mnist)


@pytest.mark.parametrize("alternatives", [NO_ALTERNATIVES, ANY])
@pytest.mark.parametrize("error", [torch.OutOfMemoryError, torch.AcceleratorError])
def test_a_device_that_is_full_or_broken_is_no_fault_of_the_kernels(
    error: type[Exception],
    alternatives: Alternatives,
    context: TrainingContext,
    mnist: MnistData,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make, tried = failing(error("the device refuses"))
    monkeypatch.setattr("mnist_cnn.kernels.triton.network.TritonProgram", make)
    graphs = GraphCache(context, without_capture, alternatives)
    with pytest.raises(error, match="the device refuses"):
        trained(context, graphs, mnist)
    assert len(tried) == 1


def fail_to_train(monkeypatch: pytest.MonkeyPatch, error: Exception) -> list[int]:
    """Have torch's steps be made, but not run; gives the sizes of the steps that are tried."""
    sizes: list[int] = []

    def train(program: TorchProgram, size: int) -> None:
        sizes.append(size)
        raise error

    monkeypatch.setattr(TorchProgram, "train", train)
    return sizes


@pytest.mark.slow
def test_kernels_that_fail_when_they_first_run_are_given_up_uncaptured_too(
    context: TrainingContext, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where nothing is captured, nothing but a first step tells."""

    class Failing(TorchProgram):
        def train(self, size: int) -> None:
            raise OutOfResources(99, 9, "registers")

    def make(context: TrainingContext, buffers: Any, shapes: Any) -> TorchProgram:
        return Failing(replace(context, kernels="torch"), buffers)

    monkeypatch.setattr("mnist_cnn.kernels.triton.network.TritonProgram", make)
    graphs = GraphCache(context, without_capture, Alternatives(kernels=True))
    model = trained(context, graphs, mnist)
    assert [failed.code.shapes for failed in graphs.failures] == [SHAPES, halved(SHAPES)]
    assert graphs.code.kernels == "torch"
    assert is_by_torch(model, context, mnist)


def test_kernels_that_were_asked_for_and_do_not_run_are_tried_once(
    context: TrainingContext, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a capture they would not run either."""
    error = RuntimeError("CUDA_ERROR_INVALID_CLUSTER_SIZE")
    sizes = fail_to_train(monkeypatch, error)
    inductor = replace(context, kernels="inductor")
    graphs = GraphCache(inductor, capture_of([]), Alternatives(capture=True))
    message = "--kernels inductor cannot be used: RuntimeError: CUDA_ERROR.*; use --kernels auto"
    with pytest.raises(UsageError, match=message):
        trained(inductor, graphs, mnist)
    assert len(sizes) == 1


def test_what_was_compared_with_the_cpu_is_what_trains_or_nothing_does(
    context: TrainingContext, mnist: MnistData, monkeypatch: pytest.MonkeyPatch
) -> None:
    torchs = replace(context, kernels="torch")
    graphs = GraphCache(torchs, capture_of([]), ANY)
    graphs.settle()
    fail_to_train(monkeypatch, RuntimeError("no more"))
    with pytest.raises(RuntimeError, match="no more"):
        trained(torchs, graphs, mnist)
    assert not graphs.failures


@pytest.mark.slow
def test_all_that_whole_runs_replay_is_captured_by_the_first_run(mnist: MnistData) -> None:
    """A later capture could fail after the comparison with the CPU, or be on a run's clock."""
    recipe = replace(RECIPE, epochs=2, selected_share=1.0)
    context = TrainingContext(recipe, Accelerator(cpu=True))
    calls: list[str] = []
    graphs = GraphCache(context, capture_of(calls))
    trained(context, graphs, mnist)
    captured = len(calls)
    rest = recipe.train_images % recipe.batch_size
    data = Split(
        mnist.train_images[: 512 + rest],
        mnist.train_labels[: 512 + rest],
        mnist.test_images[:64],
        mnist.test_labels[:64],
    )
    model = seeded_model(recipe, 0)
    for _ in train(model, context, data, 0, TrainingOptions(graphs=graphs)):
        pass
    assert len(calls) == captured


def test_halved_shapes_take_half_the_pixels_but_enough_for_a_product() -> None:
    for kernel, by_side in halved(SHAPES).items():
        for side, shape in by_side.items():
            assert shape.pixels == max(16, SHAPES[kernel][side].pixels // 2)
