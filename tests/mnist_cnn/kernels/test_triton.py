"""The Triton kernels against torch's operators: by Triton's interpreter, on a GPU where one is.

The interpreter has to be asked for before the kernels are imported: a process of its own.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, load
from mnist_cnn.engine.capture import capture_cuda_graph, without_capture
from mnist_cnn.engine.graph import StepProgram
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.events import EpochTrained, Evaluated
from mnist_cnn.kernels import triton
from mnist_cnn.kernels.buffers import DeviceBuffers
from mnist_cnn.kernels.triton.shapes import SHAPES
from mnist_cnn.parity import compare_with_cpu
from mnist_cnn.parity_steps import EVALUATED
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE
from mnist_cnn.train import TrainingOptions, seeded_model, train
from tests.mnist_cnn.kernels.programs import (
    MakeProgram,
    Steps,
    Trained,
    check_against_torch,
    deviations,
    trained,
)

pytest.importorskip("triton", reason="the package triton is not installed")
CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")
STEPS = 2


def make_program(context: TrainingContext, buffers: DeviceBuffers) -> StepProgram:
    # Lazy: the interpreter is asked for before the kernels are imported.
    from mnist_cnn.kernels.triton.network import TritonProgram

    return TritonProgram(context, buffers, SHAPES)


def check_triton(accelerator: Accelerator, batch: int, held_out: int) -> None:
    recipe = replace(FAST_GPU, batch_size=batch, memory_format="contiguous", label_smoothing=0.1)
    steps = Steps(
        recipe=recipe,
        accelerator=accelerator,
        mnist=load(),
        sizes=(batch,) * STEPS,
        held_out=held_out,
    )
    check_against_torch(make_program, steps, most=0.01)


def check_comparison() -> None:
    """The comparison before a benchmark accepts the kernels."""
    recipe = replace(FAST_GPU, batch_size=2, memory_format="contiguous")
    context = TrainingContext(recipe, Accelerator(cpu=True, mixed_precision="no"), "triton")
    data = load().split("test")
    images, labels = data.evaluation_images[:EVALUATED], data.evaluation_labels[:EVALUATED]
    few = replace(data, evaluation_images=images, evaluation_labels=labels)
    found = compare_with_cpu(context, few, "fp32", GraphCache(context, without_capture))
    assert found is not None
    assert found.problem is None, found
    assert found.gradient < 0.01, found


@pytest.mark.slow
@pytest.mark.parametrize(
    "check",
    [
        "check_triton(Accelerator(cpu=True, mixed_precision='no'), batch=3, held_out=2)",
        pytest.param("check_comparison()", marks=pytest.mark.thorough),
    ],
    ids=["against torch", "the comparison"],
)
def test_the_kernels_are_torchs_operators_by_the_interpreter(check: str) -> None:
    program = (
        "from accelerate import Accelerator\n"
        "from tests.mnist_cnn.kernels.test_triton import check_comparison, check_triton\n"
        f"{check}\n"
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


@pytest.mark.gpu
@CUDA
@pytest.mark.parametrize("batch", [96, 256])
def test_the_kernels_are_torchs_operators_on_a_gpu(batch: int) -> None:
    check_triton(_Precision("no"), batch, held_out=5000)


@pytest.mark.gpu
@CUDA
def test_in_bf16_they_are_no_further_from_fp32_than_torch_is(mnist: MnistData) -> None:
    exact, rounded = (_Precision(kind) for kind in ("no", "bf16"))

    def after_steps(make: MakeProgram, accelerator: Accelerator) -> Trained:
        steps = Steps(
            recipe=FAST_GPU,
            accelerator=accelerator,
            mnist=mnist,
            sizes=(FAST_GPU.batch_size,) * STEPS,
            held_out=1000,
        )
        return trained(make, steps)

    truth = after_steps(TorchProgram, exact)
    ours = deviations(after_steps(make_program, rounded), truth)
    torchs = deviations(after_steps(TorchProgram, rounded), truth)
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


@pytest.mark.gpu
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


@pytest.mark.gpu
@CUDA
def test_a_diverging_run_says_so_on_a_gpu(mnist: MnistData) -> None:
    recipe = replace(FAST_GPU.with_epochs(2), peak_learning_rate=1e30)
    context = TrainingContext(recipe, on_gpu(), "triton")
    options = TrainingOptions(graphs=GraphCache(context, capture_cuda_graph))
    events = train(seeded_model(recipe, 0), context, mnist.split("test"), 0, options)
    losses = [event.loss for event in events if isinstance(event, EpochTrained)]
    assert not all(map(torch.isfinite, map(torch.tensor, losses)))
