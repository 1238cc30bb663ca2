"""A training step as a program of the device: recorded once, replayed for every step.

A network this small is over sooner than Python has asked for its parts: on a GPU a step is about a
hundred launches. So the whole step (the choice of images, their distortion, forward, loss,
backward, optimizer, schedule and average) reads and writes tensors that stay where they are, its
place in the epoch and in the schedule among them, and is recorded as a CUDA graph. Source: the
whole-network capture of PyTorch's notes on CUDA graphs; airbench keeps it over runs likewise.

The same mathematics as `mnist_cnn.engine.eager`, which
`tests/mnist_cnn/engine/test_graph.py` holds it to, where nothing
can be recorded too: a step is then asked for as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Protocol

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.augment import Distortions, augment
from mnist_cnn.batches import Epoch
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.ema import floats, weight_of_step
from mnist_cnn.engine.step import memory_layout, with_batch_norm_groups
from mnist_cnn.evaluation import count
from mnist_cnn.kernels.buffers import DeviceBuffers, device_buffers
from mnist_cnn.model import MnistCnn, build_model
from mnist_cnn.optim import build_optimizer, learning_rates
from mnist_cnn.recipe import Kernels, Recipe

Replay = Callable[[], None]
Recorder = Callable[[Callable[[], None], Callable[[], None]], Replay]
"""Turns work on tensors that stay into something that does it again. Before it is done at first,
the second of the two brings it back to where it begins."""

STEPS = 8
"""Steps a recorded program; an epoch's remainder goes by programs of one."""
EVALUATION_BATCH = 2_500
"""Images a forward pass of a recorded evaluation."""
_WARM_UPS = 3
"""Times that work is done before it is recorded, for what libraries set up and choose at first."""


def capture_cuda_graph(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:
    """Record `work` as a CUDA graph.

    Raises:
        RuntimeError: it does what cannot be recorded, such as waiting for the device.
    """
    aside = torch.cuda.Stream()
    aside.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(aside):
        for _ in range(_WARM_UPS):
            rewind()
            work()
    torch.cuda.current_stream().wait_stream(aside)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        work()
    return graph.replay


def without_capture(work: Callable[[], None], rewind: Callable[[], None]) -> Replay:  # noqa: ARG001
    """Record nothing: `work` is asked for again, operation by operation."""
    return work


def capture_unsupported_reason(recipe: Recipe, accelerator: Accelerator) -> str | None:
    """Why a recipe's step cannot be a program of the device; None where it can."""
    if accelerator.num_processes > 1:
        return "several processes join their gradients in every step"
    if accelerator.scaler is not None:
        return "fp16 looks at every step whether its gradients are finite"
    if recipe.pipeline != "resident":
        return f"the {recipe.pipeline} pipeline distorts images on the CPU"
    if recipe.optimizer != "sgd" or recipe.cycle_momentum:
        return "only SGD with one momentum for all steps has its schedule on the device"
    return None


class GraphCache:
    """The programs of one recipe on one device, kept from run to run.

    Args:
        recipe: what will be trained; a run may take fewer epochs or images of it.
        accelerator: the device and the precision, one process.
        kernels: "torch", "inductor" for operators fused by torch's compiler, or "triton".
        record: `capture_cuda_graph`, or `without_capture` where the device has no such thing.
    """

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, kernels: Kernels, record: Recorder
    ) -> None:
        self._recipe = recipe
        self._accelerator = accelerator
        self._kernels = kernels
        self._record = record
        self._engine: GraphEngine | None = None
        self.failure: str | None = None
        """Why a step could not be recorded; None as long as it could, or has not been tried."""

    def engine(self, model: MnistCnn, recipe: Recipe, data: Split, steps: int) -> GraphEngine:
        """An engine that is about to train `model`.

        Where recording fails, `failure` says so and the steps are asked for as wholes.

        Args:
            model: what is trained; moved to the device.
            recipe: the programs', but for its epochs.
            data: images and labels, on the CPU.
            steps: optimizer steps of the whole run.
        """
        if self._engine is None:
            self._engine = self._made(data)
        try:
            self._engine.start(model, recipe, data, steps)
        except RuntimeError as error:
            if self._record is without_capture:
                raise
            self.failure = (str(error).splitlines() or [type(error).__name__])[0]
            self._record = without_capture
            self._engine = self._made(data)
            self._engine.start(model, recipe, data, steps)
        return self._engine

    def _made(self, data: Split) -> GraphEngine:
        return GraphEngine(self._recipe, self._accelerator, self._kernels, self._record, data)


class StepProgram(Protocol):
    """What a program of the device does to the network, by `DeviceBuffers` alone."""

    def load(self, model: MnistCnn) -> None:
        """Begin a run with `model`'s weights."""
        ...

    def train(self, size: int) -> None:
        """One whole step of `size` images; moves place and step on."""
        ...

    def evaluate(self) -> None:
        """Leave in the totals what the held-out images come to."""
        ...

    def store(self, model: MnistCnn) -> None:
        """Leave in `model` the weights that an evaluation takes."""
        ...


class GraphEngine:
    """See `mnist_cnn.engine.eager.Engine`; for one run after another, each begun by `start`."""

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        kernels: Kernels,
        record: Recorder,
        data: Split,
    ) -> None:
        self._recipe, self._record = recipe, record
        self._tables = device_buffers(recipe, accelerator, data)
        self._body: StepProgram
        if kernels == "triton":
            # Here, because importing Triton takes a while and not every machine has it.
            from mnist_cnn.kernels.triton.network import TritonProgram

            self._body = TritonProgram(recipe, accelerator, self._tables)
        else:
            self._body = TorchProgram(recipe, accelerator, self._tables, kernels)
        self._programs: dict[tuple[int, int], Replay] = {}
        self._evaluation: Replay | None = None

    def start(self, model: MnistCnn, recipe: Recipe, data: Split, steps: int) -> None:
        """Begin a run.

        Args:
            model: holds the initial weights, and will hold the last ones.
            recipe: this engine's, but for its epochs.
            data: the images, as many as the engine has room for or fewer.
            steps: optimizer steps of the whole run.

        Raises:
            RuntimeError: a step cannot be recorded.
        """
        tables, count = self._tables, len(data.train_images)
        self._model = model.to(tables.images.device)
        tables.images[:count].copy_(data.train_images)
        tables.labels[:count].copy_(data.train_labels)
        tables.held_out.copy_(data.evaluation_images)
        tables.truth.copy_(data.evaluation_labels)
        self._begin()
        batch = min(recipe.batch_size, count)
        for size, several in {(batch, STEPS), (batch, 1), (count % batch or batch, 1)}:
            if size * several <= len(tables.images):
                self._program(size, several)
        if self._evaluation is None:
            self._evaluation = self._record(self._body.evaluate, self._rewind)
        # Recording has trained the network.
        self._begin()
        tables.rates[:steps].copy_(torch.from_numpy(learning_rates(recipe, steps)).float())
        if recipe.average_decay > 0:
            shares = [weight_of_step(step, recipe) for step in range(1, steps + 1)]
            tables.shares[:steps].copy_(torch.tensor(shares))

    def epoch(self, epoch: Epoch) -> Tensor:
        """See `Engine`."""
        assert epoch.distortions is not None, "only resident images are trained on so"
        tables, count = self._tables, len(epoch.order)
        tables.order[:count].copy_(epoch.order)
        tables.table[:count].copy_(epoch.distortions.table)
        tables.place.zero_()
        size = self._recipe.batch_size
        whole, rest = divmod(count, size)
        for several in (STEPS, 1):
            for _ in range(whole // several):
                self._program(size, several)()
            whole %= several
        if rest:
            self._program(rest, 1)()
        return tables.losses[:count]

    def count(self) -> Tensor:
        """See `Engine`."""
        assert self._evaluation is not None, "a run has been started"
        self._evaluation()
        return self._tables.totals

    def finish(self) -> None:
        """See `Engine`."""
        self._body.store(self._model)

    def _begin(self) -> None:
        self._body.load(self._model)
        self._rewind()

    def _rewind(self) -> None:
        self._tables.step.zero_()
        self._tables.place.zero_()

    def _program(self, size: int, several: int) -> Replay:
        """So many steps, each of `size` images."""
        key = size, several
        if key not in self._programs:

            def work() -> None:
                for _ in range(several):
                    self._body.train(size)

            self._programs[key] = self._record(work, self._rewind)
        return self._programs[key]


class TorchProgram:
    """By torch's operators, fused or not; see `StepProgram`."""

    def __init__(
        self, recipe: Recipe, accelerator: Accelerator, tables: DeviceBuffers, kernels: Kernels
    ) -> None:
        device = tables.images.device
        self._recipe, self._accelerator, self._tables = recipe, accelerator, tables
        self._places = torch.arange(recipe.batch_size, device=device)
        self._layout = memory_layout(recipe)
        network = build_model(recipe.dropout).to(device)
        network.to(memory_format=self._layout)
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.num_batches_tracked = None  # nothing reads it, and counting is a launch
        self._network = network
        self._average = _GraphEma(network) if recipe.average_decay > 0 else None
        self._forward = self._losses_of
        if kernels == "inductor":
            self._forward = torch.compile(self._losses_of, dynamic=False, fullgraph=True)
        self._grouped = with_batch_norm_groups(network, recipe, accelerator)
        self._rate = torch.ones((), device=device)
        self._optimizer = build_optimizer(network.parameters(), recipe)
        self._optimizer.param_groups[0]["lr"] = self._rate
        self._velocities: list[Tensor] = []
        for parameter in network.parameters():
            # A momentum of zero makes the first step what torch's special first step is.
            velocity = torch.zeros_like(parameter)
            self._optimizer.state[parameter]["momentum_buffer"] = velocity
            self._velocities.append(velocity)

    @torch.no_grad()
    def load(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        self._network.train()
        torch._foreach_copy_(floats(self._network), floats(model))
        torch._foreach_zero_(self._velocities)

    def train(self, size: int) -> None:
        """See `StepProgram`."""
        tables = self._tables
        where = self._places[:size] + tables.place
        chosen = tables.order.index_select(0, where)
        losses = self._forward(
            tables.images.index_select(0, chosen),
            tables.labels.index_select(0, chosen),
            tables.table.index_select(0, where),
        )
        losses.mean().backward()
        with torch.no_grad():
            self._rate.copy_(tables.rates.index_select(0, tables.step)[0])
            self._optimizer.step()
            self._optimizer.zero_grad()
            if self._average:
                self._average.follow(tables.shares.index_select(0, tables.step))
            tables.losses.index_copy_(0, where, losses.detach())
            tables.place.add_(size)
            tables.step.add_(1)

    @torch.no_grad()
    def evaluate(self) -> None:
        """See `StepProgram`."""
        kept, tables = self._kept, self._tables
        kept.eval()
        totals = count(
            kept, tables.held_out, tables.truth, self._recipe, self._accelerator, EVALUATION_BATCH
        )
        tables.totals.copy_(totals)
        kept.train()

    @torch.no_grad()
    def store(self, model: MnistCnn) -> None:
        """See `StepProgram`."""
        torch._foreach_copy_(floats(model), floats(self._kept))

    @property
    def _kept(self) -> MnistCnn:
        return self._average.network if self._average else self._network

    def _losses_of(self, pixels: Tensor, labels: Tensor, table: Tensor) -> Tensor:
        """Of each image, (N,), with the graph of the gradients."""
        images = augment(pixels, Distortions(table), self._recipe)
        with self._accelerator.autocast():
            logits = self._grouped(images.contiguous(memory_format=self._layout))
        return F.cross_entropy(
            logits.float(), labels, label_smoothing=self._recipe.label_smoothing, reduction="none"
        )


class _GraphEma:
    """An average of a network by a weight that is on the device."""

    def __init__(self, network: MnistCnn) -> None:
        self._theirs = floats(network)
        self.network, self._joined = self._copy_of(network)
        latest, self._latest_joined = self._copy_of(network)
        self._latest = floats(latest)

    def follow(self, weight: Tensor) -> None:
        """Move by `weight`, (1,), towards what the network is now."""
        # Two launches, whatever the number of tensors.
        torch._foreach_copy_(self._latest, self._theirs)
        self._joined.lerp_(self._latest_joined, weight)

    def _copy_of(self, network: MnistCnn) -> tuple[MnistCnn, Tensor]:
        """A copy whose weights and statistics are views of one tensor, and that."""
        copy = deepcopy(network).requires_grad_(requires_grad=False)
        tensors = [*copy.parameters(), *copy.buffers()]
        joined = tensors[0].new_empty(sum(tensor.numel() for tensor in tensors))
        start = 0
        for tensor in tensors:
            view = joined.as_strided(tensor.shape, tensor.stride(), start)
            view.copy_(tensor)
            tensor.data = view
            start += tensor.numel()
        return copy, joined
