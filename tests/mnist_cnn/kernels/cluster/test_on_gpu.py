"""The CUDA kernels on a GPU that has what they need; test_network.py has them on a CPU."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.engine.capture import capture_cuda_graph, without_capture
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.events import EpochTrained, Evaluated
from mnist_cnn.kernels import cluster
from mnist_cnn.kernels.buffers import DeviceBuffers
from mnist_cnn.kernels.cluster.launch import CudaKernels
from mnist_cnn.kernels.cluster.network import ClusterProgram
from mnist_cnn.parity import compare_with_cpu
from mnist_cnn.recipe import FAST
from mnist_cnn.train import TrainingOptions, seeded_model, train
from tests.mnist_cnn.kernels.programs import MakeProgram, Steps, Trained, deviations, trained

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        not torch.cuda.is_available() or cluster.missing_hardware_reason() is not None,
        reason="there is no CUDA device with clusters",
    ),
]
RECIPE = replace(FAST.with_epochs(4), evaluate_from_epoch=1)
SIZES = (128, 112)
"""The last step of an epoch has seven groups."""


def in_precision(mixed_precision: str) -> Accelerator:
    """On the GPU, whatever another test has had Accelerate keep."""
    AcceleratorState._reset_state(reset_partial_state=True)
    return Accelerator(mixed_precision=mixed_precision)


def make_program(context: TrainingContext, buffers: DeviceBuffers) -> ClusterProgram:
    return ClusterProgram(context, buffers, CudaKernels(buffers.images.device))


def test_how_many_clusters_train_at_once() -> None:
    """Where it is fewer than a batch has, a step takes two turns: the number explains a time."""
    clusters = CudaKernels(torch.device("cuda")).clusters_at_a_time(16)
    print(f"{clusters} clusters of 16 blocks at a time; a batch of fast has 8")
    assert clusters > 0


def test_steps_are_no_further_from_fp32_than_torchs(mnist: MnistData) -> None:
    def after_steps(make: MakeProgram, mixed_precision: str) -> Trained:
        steps = Steps(
            recipe=FAST,
            accelerator=in_precision(mixed_precision),
            mnist=mnist,
            sizes=SIZES,
            held_out=1000,
        )
        return trained(make, steps)

    truth = after_steps(TorchProgram, "no")
    ours = deviations(after_steps(make_program, "bf16"), truth)
    torchs = deviations(after_steps(TorchProgram, "bf16"), truth)
    mean_ours, mean_torchs = (sum(some.values()) / len(some) for some in (ours, torchs))
    print(f"mean deviation from fp32: ours {mean_ours:.3f}, torch's {mean_torchs:.3f}")
    assert mean_ours < 1.25 * mean_torchs


def test_a_run_repeats_itself_captured_or_not(mnist: MnistData) -> None:
    context, data = TrainingContext(RECIPE, in_precision("bf16"), "cluster"), mnist.split("test")
    seen = []
    for capture in (capture_cuda_graph, capture_cuda_graph, without_capture):
        graphs = GraphCache(context, capture)
        model = seeded_model(RECIPE, 3)
        events = list(train(model, context, data, 3, TrainingOptions(graphs=graphs)))
        seen.append((events, [value.cpu() for value in model.state_dict().values()]))
    for events, values in seen[1:]:
        assert events == seen[0][0]
        assert all(torch.equal(a, b) for a, b in zip(values, seen[0][1], strict=True))
    assert [e for e in seen[0][0] if isinstance(e, Evaluated)][-1].accuracy > 0.97


def test_the_check_before_a_benchmark_accepts_them(mnist: MnistData) -> None:
    context, data = TrainingContext(FAST, in_precision("bf16"), "cluster"), mnist.split("test")
    graphs = GraphCache(context, capture_cuda_graph)
    parity = compare_with_cpu(context, data, "bf16", graphs)
    assert parity is not None
    assert parity.problem is None


def test_a_diverging_run_says_so(mnist: MnistData) -> None:
    recipe = replace(RECIPE, peak_learning_rate=1e30)
    context = TrainingContext(recipe, in_precision("bf16"), "cluster")
    options = TrainingOptions(graphs=GraphCache(context, capture_cuda_graph))
    events = train(seeded_model(recipe, 0), context, mnist.split("test"), 0, options)
    losses = [event.loss for event in events if isinstance(event, EpochTrained)]
    assert not all(map(torch.isfinite, map(torch.tensor, losses)))
