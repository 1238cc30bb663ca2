"""The same three whole steps twice: by the judge, and by what is about to be timed.

The choice of images, their distortion, forward and backward, the update by the schedule, the
average, batch norm's statistics and the evaluation; `mnist_cnn.parity` compares them.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.augment import Distortions
from mnist_cnn.batches import Batch, Batches, Epoch
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.eager import EagerEngine, Engine
from mnist_cnn.engine.graph import STEPS_PER_GRAPH
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.judge import Judge
from mnist_cnn.recipe import Kernels, OptimizerName, Recipe
from mnist_cnn.sampler import smaller_batches, steps_in_epoch
from mnist_cnn.train import seeded_model

State = dict[str, Tensor]
"""Weights and statistics by name, float64, on the CPU."""
STEPS = 3
"""Steps that are compared: the first has no momentum, the average needs a second one."""
IMAGES = 64
"""Most images of a step, unless other code would then be compared than is timed; in a smaller one
less rounding averages out: see `mnist_cnn.parity.ALLOWED`."""
EVALUATED = 64
"""Images of the evaluation."""
STATISTICS = 64
"""Images of batch norm's statistics, where the recipe takes them from undistorted images."""
_PEAKS: dict[OptimizerName, float] = {"sgd": 0.9, "adam": 0.01}
_LEAST_DIVISOR = 10.0
"""The largest peak of the learning rate in these steps, and its least ratio to the first rate: they
are those of the recipes here."""


def probed_recipe(context: TrainingContext, *, is_fixed: bool) -> Recipe:
    """The recipe of the steps that are compared.

    Args:
        context: what will be trained.
        is_fixed: whether the code that will be timed is for its size of batches only.
    """
    recipe, ranks = context.recipe, context.accelerator.num_processes
    batch = recipe.batch_size
    if not is_fixed:
        # Every rank has a group of batch norm, as it has in a whole batch.
        part = ranks * (recipe.norm_batch_size if recipe.has_norm_groups else 1)
        batch = min(batch, math.ceil(IMAGES / part) * part)
    return replace(
        recipe,
        batch_size=batch,
        dropout=0.0,
        epochs=max(2, recipe.epochs),  # an only one would take all images
        whole_epochs=0,
        pipeline="resident",
        average_interval=1,  # the first steps have an average as well
        # With a rate that diverges nothing could be compared; that is for the run to find out.
        peak_learning_rate=min(recipe.peak_learning_rate, _PEAKS[recipe.optimizer]),
        initial_divisor=max(recipe.initial_divisor, _LEAST_DIVISOR),
    )


def probed_data(data: Split, recipe: Recipe) -> Split:
    """As many training images as make one batch an epoch, and few evaluation images in turn."""
    count = min(len(data.train_images), math.ceil(recipe.batch_size / recipe.selected_share))
    # Captured code evaluates as many images as it was made for.
    turns = torch.arange(len(data.evaluation_images)) % EVALUATED
    return Split(
        train_images=data.train_images[:count],
        train_labels=data.train_labels[:count],
        evaluation_images=data.evaluation_images[turns],
        evaluation_labels=data.evaluation_labels[turns],
    )


def _total_steps(recipe: Recipe) -> int:
    """Optimizer steps of a whole run; at least those that are compared."""
    epochs = range(1, recipe.epochs + 1)
    steps = (steps_in_epoch(recipe, recipe.train_images, epoch) for epoch in epochs)
    return max(sum(steps), STEPS)


class JudgedSteps:
    """The judge's steps, which the other side then follows.

    Args:
        recipe: what is trained.
        data: few images; the labels of those to evaluate on do not matter.
        ranks: how many ranks the other side has.
        last_batch: size of a smaller last batch, which the other side has code of its own for; 0
            where it has none.
        layout: see `Judge`.
    """

    def __init__(
        self,
        recipe: Recipe,
        data: Split,
        ranks: int,
        last_batch: int = 0,
        layout: torch.memory_format = torch.contiguous_format,
    ) -> None:
        cpu = torch.device("cpu")
        context = TrainingContext(recipe, cast(Accelerator, _SingleRank(cpu)))
        batches = Batches(data, context, 0)

        def new_judge() -> Judge:
            model = seeded_model(recipe, 0)
            return Judge(recipe, model, data, _total_steps(recipe), ranks, layout)

        judge = new_judge()
        self.initial = _state(judge.network)
        self.first_losses = _some_losses(len(data.train_images))
        """The losses by which the images of the first step are chosen."""
        self.epochs: list[Epoch] = []
        self.losses: list[Tensor] = []
        self.trained: list[State] = []
        batches.losses.copy_(self.first_losses)
        for number in range(1, STEPS + 1):
            epoch = batches.epoch(number)
            assert epoch.distortions is not None, "the images are resident"
            losses = judge.step(epoch.order, epoch.distortions)
            batches.end_epoch(epoch, losses)
            self.epochs.append(epoch)
            self.losses.append(losses)
            self.trained.append(_state(judge.network))
        self.averaged = _state(judge.evaluated)
        judge.take_statistics(_statistics_images(recipe, data))
        self.evaluated = _state(judge.evaluated)
        logits = judge.logits(data.evaluation_images[:EVALUATED])
        self.predicted = logits.argmax(1)
        """The predicted class of each image, (EVALUATED,)."""
        self.evaluation_loss = float(F.cross_entropy(logits, self.predicted))
        """Mean loss if the images are what is predicted."""
        self.last_batch = _first_images(self.epochs[0], last_batch) if last_batch else None
        """A smaller last batch, as an epoch of its own; None where there is none to compare."""
        self.last_trained = self.initial
        """The weights after that batch alone."""
        if self.last_batch is not None:
            judge = new_judge()
            assert self.last_batch.distortions is not None, "the images are resident"
            judge.step(self.last_batch.order, self.last_batch.distortions)
            self.last_trained = _state(judge.network)


class FollowedSteps:
    """The same steps by what will be timed.

    Args:
        context: what is trained.
        data: few images; those to evaluate on have the labels that the judge predicts.
        judged: the steps.
        graphs: the engine of captured or fused steps that will be timed; None for the eager one.
    """

    def __init__(
        self, context: TrainingContext, data: Split, judged: JudgedSteps, graphs: GraphCache | None
    ) -> None:
        recipe, accelerator = context.recipe, context.accelerator
        batches, model = Batches(data, context, 0), seeded_model(recipe, 0)
        steps = _total_steps(recipe)
        engine: Engine
        if graphs is not None:
            engine = graphs.engine(model, recipe, data, steps)
        else:
            engine = EagerEngine(model, context, _evaluated_once(data), batches, steps)
        self.selection = 0.0
        self.losses: list[Tensor] = []
        self.trained: list[State] = []
        batches.losses.copy_(judged.first_losses)
        for number, expected in enumerate(judged.epochs, start=1):
            known = batches.losses.cpu()
            own = batches.epoch(number)
            self.selection = max(self.selection, _missed(known, own.order.cpu(), recipe))
            # The judge's images: after another choice nothing else could be compared.
            epoch = _on_device(expected, accelerator.device)
            losses = engine.epoch(epoch)
            batches.end_epoch(epoch, losses)
            if recipe.selected_share < 1:
                losses = batches.losses[epoch.order]
            elif accelerator.num_processes > 1:
                total = accelerator.reduce(losses.sum(), "sum")
                losses = (total / len(epoch.order)).reshape(1)
            # A copy: captured code writes all losses to one place.
            self.losses.append(losses.to("cpu", torch.float32, copy=True))
            self.trained.append(_state(engine.network(averaged=False)))
        self.averaged = _state(engine.network(averaged=True))
        pixels = _statistics_images(recipe, data).to(accelerator.device)
        correct, loss, images = accelerator.reduce(engine.count(pixels), "sum").tolist()
        self.evaluated = _state(engine.network(averaged=True))
        self.correct, self.evaluation_loss = correct / images, loss / images
        self.last_trained = judged.initial
        self.graphs = 0.0
        """See `GraphEngine.compare_graphs`."""
        if graphs is not None:
            graph_engine = graphs.engine(seeded_model(recipe, 0), recipe, data, steps)
            if judged.last_batch is not None:
                graph_engine.epoch(_on_device(judged.last_batch, accelerator.device))
                self.last_trained = _state(graph_engine.network(averaged=False))
            batches_of_a_graph = _several_batches(judged.epochs, len(data.train_images))
            self.graphs = graph_engine.compare_graphs(
                _on_device(batches_of_a_graph, accelerator.device)
            )


def _missed(losses: Tensor, order: Tensor, recipe: Recipe) -> float:
    """Share of the hardest images that an epoch does not take; 1 where its images are not its own.

    Args:
        losses: the last loss of each image, (N,).
        order: the epoch's images, (M,).
        recipe: the share of the hardest images.
    """
    if len(order.unique()) < len(order) or int(order.max()) >= len(losses):
        return 1.0
    hardest = round(len(order) * recipe.hardest_share) if len(order) < len(losses) else 0
    if hardest == 0:
        return 0.0
    least = losses.topk(hardest).values.min()
    # Of equal losses any may be taken.
    required = (losses > least).nonzero().flatten()
    missed = len(required) - int(torch.isin(required, order).sum())
    return missed / max(1, len(required))


class _SingleRank:
    """The parts of an accelerator that `Batches` uses, for one rank that takes all images."""

    num_processes, process_index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device


def second_batch(recipe: Recipe, data: Split, device: torch.device, kernels: Kernels) -> Batch:
    """The second batch of an epoch: its rows of tables do not start at the tables' start."""
    first_images = replace(
        data,
        train_images=data.train_images[: 2 * IMAGES],
        train_labels=data.train_labels[: 2 * IMAGES],
    )
    accelerator = cast(Accelerator, _SingleRank(device))
    batches = Batches(first_images, TrainingContext(recipe, accelerator, kernels), 0)
    batches.load()
    return list(batches.batches(batches.epoch(1)))[1]


def _some_losses(count: int) -> Tensor:
    """As if all images had been trained on: each has another loss, in no order."""
    shuffled = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return torch.linspace(0, 1, count)[shuffled]


def _statistics_images(recipe: Recipe, data: Split) -> Tensor:
    """The images of `measure_statistics`; none where the recipe has none."""
    return data.train_images[: min(STATISTICS, recipe.statistics_images)]


def last_batch_of(recipe: Recipe) -> int:
    """Size of a run's smaller last batch; 0 where all batches are alike."""
    return max(smaller_batches(recipe, recipe.train_images), default=0)


def _first_images(epoch: Epoch, count: int) -> Epoch:
    assert epoch.distortions is not None, "the images are resident"
    return Epoch(epoch.order[:count], epoch.distortions[slice(count)])


def _several_batches(epochs: list[Epoch], images: int) -> Epoch:
    """As many batches as a graph has steps, no two alike, of the distortions of these epochs."""
    size = len(epochs[0].order)
    positions = torch.arange(size * STEPS_PER_GRAPH)
    tables = [epoch.distortions.table for epoch in epochs if epoch.distortions is not None]
    table = torch.cat(tables)
    # Where a batch has all images, each batch still begins with another.
    order = (positions + positions // size) % images
    return Epoch(order, Distortions(table[positions % len(table)]))


def _on_device(epoch: Epoch, device: torch.device) -> Epoch:
    assert epoch.distortions is not None
    return Epoch(epoch.order.to(device), epoch.distortions.to(device))


def _evaluated_once(data: Split) -> Split:
    """Without the turns that only captured code needs."""
    images, labels = data.evaluation_images[:EVALUATED], data.evaluation_labels[:EVALUATED]
    return replace(data, evaluation_images=images, evaluation_labels=labels)


def _state(network: nn.Module) -> State:
    """Weights and statistics, float64, on the CPU."""
    items = network.state_dict().items()
    return {name: value.cpu().double() for name, value in items if value.is_floating_point()}
