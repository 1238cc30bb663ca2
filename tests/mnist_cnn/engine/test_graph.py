"""Whole steps as graphs of the device: the same as steps asked for one by one."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from hypothesis import given, strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine.capture import (
    Capture,
    CaptureError,
    Replay,
    capture_cuda_graph,
    capture_unsupported_reason,
    without_capture,
)
from mnist_cnn.engine.graph_cache import Alternatives, GraphCache
from mnist_cnn.events import EpochTrained, Evaluated, Event, Started
from mnist_cnn.model import MnistCnn
from mnist_cnn.optim import build_schedule, learning_rates
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE, Kernels, Recipe
from mnist_cnn.train import TrainingOptions, seeded_model, train

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
SMALL = replace(FAST.with_epochs(4), batch_size=64, norm_batch_size=0, memory_format="contiguous")
RECIPES = {
    "selected and averaged": replace(SMALL, evaluate_from_epoch=3, average_interval=3),
    "in groups": replace(SMALL, norm_batch_size=32),
    "statistics of undistorted images": replace(SMALL, statistics_images=200),
    "all images, a smaller batch at last": replace(
        SMALL.with_epochs(2), selected_share=1.0, average_decay=0.0, evaluate_from_epoch=1
    ),
}


def parts(mnist: MnistData, count: int = 700) -> Split:
    return Split(
        mnist.train_images[:count],
        mnist.train_labels[:count],
        mnist.test_images[:150],
        mnist.test_labels[:150],
    )


def on(device: str, precision: str = "no") -> Accelerator:
    AcceleratorState._reset_state(reset_partial_state=True)  # another test may have had another
    return Accelerator(cpu=device == "cpu", mixed_precision=precision, dynamo_backend="no")


def run(
    recipe: Recipe,
    accelerator: Accelerator,
    data: Split,
    graphs: GraphCache | None,
    kernels: Kernels = "torch",
) -> tuple[list[Event], MnistCnn]:
    model = seeded_model(recipe, 1)
    context = TrainingContext(recipe, accelerator, kernels)
    return list(train(model, context, data, 1, TrainingOptions(graphs=graphs))), model


def same(first: MnistCnn, second: MnistCnn) -> bool:
    return all(
        torch.equal(one, other)
        for one, other in zip(
            first.state_dict().values(), second.state_dict().values(), strict=True
        )
        if one.is_floating_point()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.thorough if name.startswith("all images") else ())
        for name in RECIPES
    ],
)
def test_it_trains_what_the_loop_trains_to_the_last_bit(name: str, mnist: MnistData) -> None:
    recipe, accelerator, data = RECIPES[name], on("cpu"), parts(mnist)
    events, model = run(recipe, accelerator, data, None)
    graphs = GraphCache(TrainingContext(recipe, accelerator), without_capture)
    for _ in range(2):  # the second run finds everything set up
        again, other = run(recipe, accelerator, data, graphs)
        assert [event for event in again if isinstance(event, EpochTrained)] == [
            event for event in events if isinstance(event, EpochTrained)
        ]
        assert same(model, other)
        for ours, theirs in zip(again, events, strict=True):
            if isinstance(ours, Evaluated) and isinstance(theirs, Evaluated):
                assert ours.correct == theirs.correct
                assert ours.loss == pytest.approx(theirs.loss, rel=1e-6)


@pytest.mark.slow
def test_a_shorter_run_first_changes_nothing(mnist: MnistData) -> None:
    """The warm-up is one epoch over fewer images, by the same programs."""
    recipe, accelerator = RECIPES["selected and averaged"], on("cpu")
    _, model = run(recipe, accelerator, parts(mnist), None)
    graphs = GraphCache(TrainingContext(recipe, accelerator), without_capture)
    run(recipe.with_epochs(1), accelerator, parts(mnist, 200), graphs)
    _, other = run(recipe, accelerator, parts(mnist), graphs)
    assert same(model, other)


@pytest.mark.slow
def test_a_run_that_diverged_changes_nothing_of_the_next(mnist: MnistData) -> None:
    recipe, accelerator, data = RECIPES["selected and averaged"], on("cpu"), parts(mnist, 300)
    events, model = run(recipe, accelerator, data, None)
    context = TrainingContext(recipe, accelerator)
    options = TrainingOptions(graphs=GraphCache(context, without_capture))
    broken = seeded_model(recipe, 1)
    with torch.no_grad():
        for parameter in broken.parameters():
            parameter.fill_(torch.nan)
    losses = [
        e.loss for e in train(broken, context, data, 1, options) if isinstance(e, EpochTrained)
    ]
    assert all(map(math.isnan, losses))
    again, other = run(recipe, accelerator, data, options.graphs)
    assert again[-1] == events[-1]
    assert same(model, other)


@pytest.mark.slow
def test_what_cannot_be_recorded_is_asked_for_and_said(mnist: MnistData) -> None:
    recipe, accelerator, data = RECIPES["in groups"], on("cpu"), parts(mnist)

    def refuse(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
        work()  # it gets as far as having trained
        error = RuntimeError("operation not permitted when stream is capturing\nand more")
        raise CaptureError from error

    context = TrainingContext(recipe, accelerator)
    graphs = GraphCache(context, refuse, Alternatives(capture=True))
    _, model = run(recipe, accelerator, data, graphs)
    assert [failed.reason for failed in graphs.failures] == [
        "RuntimeError: operation not permitted when stream is capturing"
    ]
    _, other = run(recipe, accelerator, data, None)
    assert same(model, other)


@pytest.mark.slow
def test_an_epoch_waits_for_the_device_once(mnist: MnistData) -> None:
    """A read of a number from the device is the only thing here that would wait for a GPU."""
    recipe = RECIPES["selected and averaged"]
    context = TrainingContext(recipe, on("cpu"))
    for graphs in (None, GraphCache(context, without_capture)):
        options = TrainingOptions(graphs=graphs)
        events = train(seeded_model(recipe, 0), context, parts(mnist), 0, options)
        next(events)
        for _ in range(2):
            with _Reads() as reads:
                assert isinstance(next(events), EpochTrained)
            assert reads.count == 1


@pytest.mark.slow
def test_an_evaluation_waits_for_the_device_once(mnist: MnistData) -> None:
    """Also where it first takes batch norm's statistics, of several batches."""
    recipe = replace(SMALL, epochs=1, evaluate_from_epoch=1, statistics_images=600)
    context, data = TrainingContext(recipe, on("cpu")), parts(mnist, 700)
    for graphs in (None, GraphCache(context, without_capture)):
        events = train(seeded_model(recipe, 0), context, data, 0, TrainingOptions(graphs=graphs))
        assert isinstance(next(events), Started)
        assert isinstance(next(events), EpochTrained)
        with _Reads() as reads:
            assert isinstance(next(events), Evaluated)
        assert reads.count <= 3, "correct, loss and their number, read together"


class _Reads(TorchDispatchMode):
    """Counts numbers that Python asks tensors for, and what else has a size that data decide."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "nonzero", "masked_select", "unique", "item"):
            self.count += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.slow
@given(
    steps=st.integers(1, 400),
    warmup=st.floats(0.05, 0.9),
    peak=st.floats(1e-4, 10),
    anneal=st.sampled_from(["cos", "linear"]),
)
def test_rates_are_those_of_torchs_schedule(
    steps: int, warmup: float, peak: float, anneal: str
) -> None:
    recipe = replace(FAST, warmup_fraction=warmup, peak_learning_rate=peak, anneal=anneal)  # type: ignore[arg-type]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1, momentum=0.9)
    schedule = build_schedule(optimizer, recipe, steps)
    expected = []
    for step in range(steps):
        expected.append(optimizer.param_groups[0]["lr"])
        if step + 1 < steps:
            optimizer.step()
            schedule.step()
    assert learning_rates(recipe, steps).tolist() == pytest.approx(expected, rel=1e-9)


def test_what_a_program_cannot_do_has_a_reason() -> None:
    accelerator = on("cpu")
    assert capture_unsupported_reason(FAST_GPU, accelerator) is None
    assert "CPU" in str(capture_unsupported_reason(REFERENCE, accelerator))
    resident = replace(REFERENCE, pipeline="resident")
    assert "SGD" in str(capture_unsupported_reason(resident, accelerator))


@pytest.mark.thorough
@pytest.mark.filterwarnings("ignore:The distutils package is deprecated")  # torch's C++ builder
def test_fused_operators_train_alike(mnist: MnistData, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inductor's arithmetic is in another order, and where values tie pooling takes another."""
    # By this process: each of the others would import torch first.
    monkeypatch.setattr("torch._inductor.config.compile_threads", 1)
    recipe, accelerator, data = RECIPES["selected and averaged"], on("cpu"), parts(mnist, 640)
    plain, _ = run(recipe, accelerator, data, None)
    context = TrainingContext(recipe, accelerator, "inductor")
    for graphs in (None, GraphCache(context, without_capture)):
        events, _ = run(recipe, accelerator, data, graphs, "inductor")
        losses, expected = (
            [event.loss for event in some if isinstance(event, EpochTrained)]
            for some in (events, plain)
        )
        assert losses[0] == pytest.approx(expected[0], rel=1e-3)
        assert losses == pytest.approx(expected, rel=0.1)


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("capture", [without_capture, capture_cuda_graph])
@pytest.mark.parametrize("name", RECIPES)
def test_a_gpu_trains_the_same_recorded_or_not(
    name: str, capture: Capture, mnist: MnistData
) -> None:
    recipe = replace(RECIPES[name], memory_format="channels_last")
    accelerator, data = on("cuda"), parts(mnist)
    events, _ = run(recipe, accelerator, data, None)
    graphs = GraphCache(TrainingContext(recipe, accelerator), capture)
    for _ in range(2):
        again, _ = run(recipe, accelerator, data, graphs)
        assert not graphs.failures
        losses, expected = (
            [event.loss for event in some if isinstance(event, EpochTrained)]
            for some in (again, events)
        )
        assert losses[0] == pytest.approx(expected[0], rel=1e-3)
        assert losses == pytest.approx(expected, rel=0.15)


@pytest.mark.gpu
@CUDA
def test_an_epoch_on_a_gpu_waits_for_it_once(mnist: MnistData) -> None:
    accelerator, data = on("cuda", "bf16"), parts(mnist)
    recipe = replace(SMALL, memory_format="channels_last")
    kinds: tuple[Kernels, ...] = ("torch", "triton")
    for kernels in kinds:
        context = TrainingContext(recipe, accelerator, kernels)
        options = TrainingOptions(graphs=GraphCache(context, capture_cuda_graph))
        events = train(seeded_model(recipe, 0), context, data, 0, options)
        next(events)
        next(events)
        with warnings.catch_warnings(record=True) as waits:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")  # which warns that it is a prototype
            next(events)
            torch.cuda.set_sync_debug_mode("default")
        said = [str(wait.message) for wait in waits]
        assert sum("called a synchronizing" in text for text in said) == 1, said
