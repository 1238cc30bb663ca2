"""The Triton kernels against torch's operators: by Triton's interpreter, on a GPU where one is.

The interpreter has to be asked for before the kernels are imported: a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass, replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mnist_cnn.augment import draw
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine.capture import capture_cuda_graph, without_capture
from mnist_cnn.engine.graph import StepProgram
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.events import EpochTrained, Evaluated
from mnist_cnn.kernels import triton
from mnist_cnn.kernels.buffers import DeviceBuffers, device_buffers
from mnist_cnn.kernels.triton.shapes import SHAPES
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE, Kernels, Recipe
from mnist_cnn.train import TrainingOptions, seeded_model, train

pytest.importorskip("triton", reason="the package triton is not installed")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
STEPS = 2


@dataclass
class Trained:
    program: StepProgram
    buffers: DeviceBuffers
    before: MnistCnn
    after: MnistCnn


def trained(
    kernels: Kernels, recipe: Recipe, accelerator: Accelerator, mnist: MnistData, held_out: int
) -> Trained:
    """A few steps from the same weights on the same images."""
    data = Split(
        mnist.train_images,
        mnist.train_labels,
        mnist.test_images[:held_out],
        mnist.test_labels[:held_out],
    )
    context = TrainingContext(recipe, accelerator, kernels)
    buffers = device_buffers(context, data)
    buffers.images.copy_(data.train_images)
    buffers.labels.copy_(data.train_labels)
    buffers.evaluation_images.copy_(data.evaluation_images)
    buffers.evaluation_labels.copy_(data.evaluation_labels)
    count = STEPS * recipe.batch_size
    generator = torch.Generator().manual_seed(5)
    buffers.order[:count] = torch.randperm(60_000, generator=generator)[:count].to(
        accelerator.device
    )
    buffers.distortions[:count] = draw(count, recipe, generator).to(accelerator.device).table
    buffers.learning_rates[:] = 0.001  # where rounding does not yet decide which way a ReLU goes
    buffers.average_weights[:] = 0.5
    buffers.average_weights[0] = 1
    program: StepProgram
    if kernels == "triton":
        from mnist_cnn.kernels.triton.network import TritonProgram

        program = TritonProgram(context, buffers, SHAPES)
    else:
        program = TorchProgram(context, buffers)
    before = seeded_model(recipe, 0).to(accelerator.device)
    program.load(before)
    for _ in range(STEPS):
        program.train(recipe.batch_size)
    program.evaluate()
    after = seeded_model(recipe, 1).to(accelerator.device)
    program.store(after)
    return Trained(program, buffers, before, after)


def deviations(ours: Trained, theirs: Trained) -> dict[str, float]:
    """Of each tensor's change over the steps: the difference, relative to the change."""
    start, mine, other = (t.state_dict() for t in (ours.before, ours.after, theirs.after))
    return {
        name: float((mine[name] - other[name]).norm() / (other[name] - start[name]).norm())
        for name in start
        if start[name].is_floating_point()
    }


def check_against_torch(accelerator: Accelerator, batch: int, held_out: int) -> None:
    """In float32, where both compute the same but for the order of sums."""
    from mnist_cnn.data.dataset import load

    mnist = load()
    recipe = replace(FAST_GPU, batch_size=batch, memory_format="contiguous", label_smoothing=0.1)
    ours = trained("triton", recipe, accelerator, mnist, held_out)
    theirs = trained("torch", recipe, accelerator, mnist, held_out)
    count = STEPS * batch
    torch.testing.assert_close(
        ours.buffers.losses[:count], theirs.buffers.losses[:count], rtol=1e-3, atol=1e-3
    )
    worst = max(deviations(ours, theirs).items(), key=lambda item: item[1])
    assert worst[1] < 0.01, worst
    assert ours.buffers.totals[0] == theirs.buffers.totals[0]
    torch.testing.assert_close(ours.buffers.totals, theirs.buffers.totals, rtol=1e-4, atol=1e-2)
    assert int(ours.buffers.position) == count
    assert int(ours.buffers.step) == STEPS
    network = seeded_model(recipe, 2).to(accelerator.device)
    ours.program.take_statistics(network)
    ours.program.store(ours.after)
    for taken, given in zip(ours.after.buffers(), network.buffers(), strict=True):
        assert torch.equal(taken, given) or not given.is_floating_point()


@pytest.mark.slow
def test_the_kernels_are_torchs_operators_by_the_interpreter() -> None:
    program = (
        "from accelerate import Accelerator\n"
        "from tests.mnist_cnn.kernels.test_triton import check_against_torch\n"
        "check_against_torch(Accelerator(cpu=True, mixed_precision='no'), batch=5, held_out=8)\n"
    )
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def test_what_they_cannot_do_has_a_reason() -> None:
    assert triton.unsupported_reason(FAST_GPU) is None
    assert "batch norm" in str(triton.unsupported_reason(FAST))
    assert "SGD" in str(triton.unsupported_reason(REFERENCE))
    assert "dropout" in str(triton.unsupported_reason(replace(FAST_GPU, dropout=0.1)))
    assert "bilinear" in str(triton.unsupported_reason(replace(FAST_GPU, brightness=0.2)))


@CUDA
@pytest.mark.parametrize("batch", [96, 256])
def test_the_kernels_are_torchs_operators_on_a_gpu(batch: int) -> None:
    check_against_torch(_Precision("no"), batch, held_out=5000)


@CUDA
def test_in_bf16_they_are_no_further_from_fp32_than_torch_is(mnist: MnistData) -> None:
    exact, rounded = (_Precision(kind) for kind in ("no", "bf16"))
    truth = trained("torch", FAST_GPU, exact, mnist, 1000)
    ours = deviations(trained("triton", FAST_GPU, rounded, mnist, 1000), truth)
    torchs = deviations(trained("torch", FAST_GPU, rounded, mnist, 1000), truth)
    mean_ours, mean_torchs = (sum(some.values()) / len(some) for some in (ours, torchs))
    print(f"mean deviation from fp32: ours {mean_ours:.3f}, torch's {mean_torchs:.3f}")
    assert mean_ours < 1.25 * mean_torchs


class _Precision:
    """An accelerator of a precision of its own: Accelerate keeps one for the whole process."""

    num_processes, process_index, scaler = 1, 0, None

    def __init__(self, mixed_precision: str) -> None:
        self.device = torch.device("cuda")
        self.mixed_precision = mixed_precision

    def autocast(self) -> torch.autocast:
        return torch.autocast("cuda", torch.bfloat16, enabled=self.mixed_precision == "bf16")


def on_gpu() -> Accelerator:
    """In bf16, whatever another test has had Accelerate keep."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision="bf16")


@CUDA
def test_a_run_repeats_itself_recorded_or_not(mnist: MnistData) -> None:
    recipe = replace(FAST_GPU.with_epochs(4), evaluate_from_epoch=1)
    context, data = TrainingContext(recipe, on_gpu(), "triton"), mnist.split("test")
    seen = []
    for capture in (capture_cuda_graph, capture_cuda_graph, without_capture):
        graphs = GraphCache(context, capture)
        model = seeded_model(recipe, 3)
        events = list(train(model, context, data, 3, TrainingOptions(graphs=graphs)))
        assert not graphs.failures
        seen.append((events, [value.cpu() for value in model.state_dict().values()]))
    for events, values in seen[1:]:
        assert events == seen[0][0]
        assert all(torch.equal(a, b) for a, b in zip(values, seen[0][1], strict=True))
    assert [e for e in seen[0][0] if isinstance(e, Evaluated)][-1].accuracy > 0.97


@CUDA
def test_a_diverging_run_says_so_on_a_gpu(mnist: MnistData) -> None:
    recipe = replace(FAST_GPU.with_epochs(2), peak_learning_rate=1e30)
    context = TrainingContext(recipe, on_gpu(), "triton")
    options = TrainingOptions(graphs=GraphCache(context, capture_cuda_graph))
    events = train(seeded_model(recipe, 0), context, mnist.split("test"), 0, options)
    losses = [event.loss for event in events if isinstance(event, EpochTrained)]
    assert not all(map(torch.isfinite, map(torch.tensor, losses)))
