"""Trains by replaying CUDA graphs of whole steps, which the GPU runs without Python.

A step of this network is about a hundred launches on a GPU, and Python takes longer to launch them
than the GPU takes to run them. So a whole step (the choice of images, their distortion, forward,
loss, backward, optimizer, learning-rate schedule and moving average of the weights) works on
tensors that keep their addresses (also its position in the epoch and in the schedule), and is
captured as a CUDA graph. As in cifar10-airbench, later runs replay the graphs of the first.

The mathematics is that of `mnist_cnn.engine.eager`; `tests/mnist_cnn/engine/test_graph.py` compares
the two, also on devices without CUDA graphs: there, a "replay" runs the operations again.
"""

from __future__ import annotations

import math
from copy import deepcopy
from typing import Protocol

import torch
from torch import Tensor

from mnist_cnn.batches import Epoch
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.capture import Capture, Replay, without_capture
from mnist_cnn.engine.ema import weight_of_step
from mnist_cnn.engine.statistics import measure_statistics
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.kernels.buffers import DeviceBuffers, device_buffers
from mnist_cnn.kernels.cluster.launch import CudaKernels
from mnist_cnn.kernels.cluster.network import ClusterProgram
from mnist_cnn.kernels.triton.shapes import Shapes
from mnist_cnn.model import MnistCnn
from mnist_cnn.optim import learning_rates
from mnist_cnn.recipe import Recipe
from mnist_cnn.sampler import smaller_batches

STEPS_PER_GRAPH = 8
"""Steps in a graph; graphs of one step do what is left of an epoch."""


class StepProgram(Protocol):
    """Code of one training step and of the evaluation; what is captured.

    It has a network of its own, and reads and writes nothing but that and `DeviceBuffers`.
    """

    def load(self, model: MnistCnn) -> None:
        """Start a run with the weights of `model`."""
        ...

    def train(self, size: int) -> None:
        """Train on the next `size` images of the epoch, and advance `position` and `step`."""
        ...

    def evaluate(self) -> None:
        """Evaluate the network, and write the result to the buffer `totals`."""
        ...

    def store(self, model: MnistCnn, *, averaged: bool = True) -> None:
        """Copy the weights and running statistics into `model`: the average, or the trained ones.

        Without an average both are the same. An evaluation uses the average.
        """
        ...

    def take_statistics(self, model: MnistCnn) -> None:
        """Take the running statistics of `model` for evaluations."""
        ...


class GraphEngine:
    """See `mnist_cnn.engine.eager.Engine`; trains any number of runs, each begun by `start`.

    Args:
        context: what is trained.
        capture: captures the steps.
        shapes: launch parameters of Triton's kernels; None for other kernels.
        data: its number of evaluation images decides the size of their buffers.
    """

    def __init__(
        self, context: TrainingContext, capture: Capture, shapes: Shapes | None, data: Split
    ) -> None:
        self._context = context
        self._batch_size = context.recipe.batch_size
        self._capture = capture
        # What is launched one by one gains nothing from being many.
        self._steps_per_graph = 1 if capture is without_capture else STEPS_PER_GRAPH
        self._buffers = device_buffers(context, data)
        self._program = _make_program(context, self._buffers, shapes)
        self._step_replays: dict[tuple[int, int], Replay] = {}
        self._evaluation_replay: Replay | None = None

    def start(self, model: MnistCnn, recipe: Recipe, data: Split, steps: int) -> None:
        """Start a run, and capture what is not captured yet.

        Args:
            model: holds the initial weights, and after the run the final ones.
            recipe: the engine's recipe, or the same with other epochs.
            data: at most as many images as the buffers have room for.
            steps: optimizer steps of the whole run.

        Raises:
            Exception: of any kind, where a step cannot be compiled or captured.
        """
        buffers, count = self._buffers, len(data.train_images)
        self._model = model.to(buffers.images.device)
        buffers.images[:count].copy_(data.train_images)
        buffers.labels[:count].copy_(data.train_labels)
        buffers.evaluation_images.copy_(data.evaluation_images)
        buffers.evaluation_labels.copy_(data.evaluation_labels)
        self._reset()
        batch = min(recipe.batch_size, count)
        # Those of whole runs as well: what is compared with the CPU is then all that will train.
        lasts = smaller_batches(recipe, count) | smaller_batches(
            self._context.recipe, self._context.recipe.train_images
        )
        for size, step_count in {
            (batch, self._steps_per_graph),
            *((size, 1) for size in (batch, *lasts)),
        }:
            if size * step_count <= len(buffers.images):
                self._step_replay(size, step_count)
        if self._evaluation_replay is None:
            self._evaluation_replay = self._capture(self._program.evaluate, self._rewind)
        # A capture may run the steps first, to warm up: that has changed the weights.
        self._reset()
        buffers.learning_rates[:steps].copy_(
            torch.from_numpy(learning_rates(recipe, steps)).float()
        )
        if recipe.average_decay > 0:
            weights = [weight_of_step(step, recipe) for step in range(1, steps + 1)]
            buffers.average_weights[:steps].copy_(torch.tensor(weights))

    def epoch(self, epoch: Epoch) -> Tensor:
        """See `Engine`."""
        buffers, count = self._buffers, len(epoch.order)
        self._load_epoch(epoch)
        whole_batches, rest = divmod(count, self._batch_size)
        for step_count in (self._steps_per_graph, 1):
            for _ in range(whole_batches // step_count):
                self._step_replay(self._batch_size, step_count)()
            whole_batches %= step_count
        if rest:
            self._step_replay(rest, 1)()
        return buffers.losses[:count]

    def count(self, statistics_images: Tensor) -> Tensor:
        """See `Engine`."""
        if len(statistics_images):
            self._program.store(self._model)
            measure_statistics(self._model, statistics_images, self._context)
            self._program.take_statistics(self._model)
        assert self._evaluation_replay is not None, "a run has been started"
        self._evaluation_replay()
        return self._buffers.totals

    def network(self, *, averaged: bool) -> MnistCnn:
        """See `Engine`."""
        self._program.store(self._model, averaged=averaged)
        return self._model

    def finish(self) -> None:
        """See `Engine`."""
        self._program.store(self._model)

    def compare_graphs(self, epoch: Epoch) -> float:
        """How far steps that one graph replays are from as many that are replayed one by one.

        It ends the run that was started.

        Args:
            epoch: `STEPS_PER_GRAPH` whole batches of images.

        Returns:
            Difference of the weights' changes, of those of their average, or of the losses,
            relative to their lengths, the largest; infinite where the graph has not come as far; 0
            where a graph is of one step.
        """
        several = self._steps_per_graph
        if several == 1 or (self._batch_size, several) not in self._step_replays:
            return 0.0
        start = deepcopy(self._model)
        one_by_one, together = (self._replay_from(start, epoch, count) for count in (1, several))
        if not torch.equal(one_by_one[0], together[0]):
            return math.inf
        pairs = zip(one_by_one[1:], together[1:], strict=True)
        differences = [
            0.0 if torch.equal(x, y) else float((x - y).norm() / x.norm()) for x, y in pairs
        ]
        return max(differences, key=lambda value: (math.isnan(value), value))

    def _replay_from(self, start: MnistCnn, epoch: Epoch, step_count: int) -> list[Tensor]:
        """Train from the weights of `start` on an epoch, so many steps at a time.

        Returns:
            Position and step; the change of the weights, and that of their average; the losses.
        """
        buffers, count = self._buffers, len(epoch.order)
        self._program.load(start)
        self._rewind()
        self._load_epoch(epoch)
        for _ in range(count // self._batch_size // step_count):
            self._step_replay(self._batch_size, step_count)()
        changes = []
        for averaged in (False, True):
            trained = deepcopy(start)
            self._program.store(trained, averaged=averaged)
            pairs = zip(trained.parameters(), start.parameters(), strict=True)
            changes.append(torch.cat([(x - y).flatten() for x, y in pairs]).detach())
        progress = torch.cat([buffers.position, buffers.step]).clone()
        return [progress, *changes, buffers.losses[:count].clone()]

    def _load_epoch(self, epoch: Epoch) -> None:
        assert epoch.distortions is not None, "the images are resident"
        buffers, count = self._buffers, len(epoch.order)
        buffers.order[:count].copy_(epoch.order)
        buffers.distortions[:count].copy_(epoch.distortions.table)
        buffers.position.zero_()

    def _reset(self) -> None:
        self._program.load(self._model)
        self._rewind()

    def _rewind(self) -> None:
        self._buffers.step.zero_()
        self._buffers.position.zero_()

    def _step_replay(self, size: int, step_count: int) -> Replay:
        """The replay of that many steps of `size` images each; captured at the first call."""
        key = size, step_count
        if key not in self._step_replays:

            def run_steps() -> None:
                for _ in range(step_count):
                    self._program.train(size)

            self._step_replays[key] = self._capture(run_steps, self._rewind)
        return self._step_replays[key]


def _make_program(
    context: TrainingContext, buffers: DeviceBuffers, shapes: Shapes | None
) -> StepProgram:
    if context.kernels == "cluster":
        return ClusterProgram(context, buffers, CudaKernels(buffers.images.device))
    if shapes is None:
        return TorchProgram(context, buffers)
    # Lazy: Triton is slow to import, and not every machine has it.
    from mnist_cnn.kernels.triton.network import TritonProgram

    return TritonProgram(context, buffers, shapes)
