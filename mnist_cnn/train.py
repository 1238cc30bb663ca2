"""The training loop: one, on Accelerate, for every device and any number of processes.

It yields events and has no clock; the consumer of the events decides when to stop. An epoch never
waits for the device: its loss is read once, at its end.
"""

from __future__ import annotations

import random
from collections.abc import Generator
from dataclasses import dataclass

import torch

from mnist_cnn.batches import Batches
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.checkpoint import Checkpoints, State
from mnist_cnn.engine.eager import EagerEngine, Engine
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.statistics import choose_statistics_images
from mnist_cnn.errors import UsageError
from mnist_cnn.evaluation import evaluation_event
from mnist_cnn.events import Checkpointed, EpochTrained, Event, Finished, Started
from mnist_cnn.model import MnistCnn, build_model, parameter_count
from mnist_cnn.recipe import WHOLE_STEP_KERNELS, Recipe
from mnist_cnn.seeds import derived_seed

NO_CHECKPOINTS = (
    "checkpoints need the eager engine: turn capture off, and use other kernels than "
    f"{' and '.join(WHOLE_STEP_KERNELS)}"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How a training is driven; it trains the same with any of these.

    Raises:
        UsageError: from the constructor, for checkpoints of captured steps.
    """

    graphs: GraphCache | None = None
    """Captured steps to replay, kept from run to run; None for the eager engine."""
    checkpoints: Checkpoints | None = None
    """Where states between epochs are saved, one of which may be resumed; None to save none."""

    def __post_init__(self) -> None:
        """Refuse checkpoints of captured steps."""
        if self.graphs is not None and self.checkpoints is not None:
            raise UsageError(NO_CHECKPOINTS)


DEFAULT_OPTIONS = TrainingOptions()


def seeded_model(recipe: Recipe, seed: int) -> MnistCnn:
    """A network on the CPU, whose initial weights depend on `seed` alone."""
    torch.manual_seed(derived_seed(seed, "weights"))
    return build_model(recipe.dropout)


def train(
    model: MnistCnn,
    context: TrainingContext,
    data: Split,
    seed: int,
    options: TrainingOptions = DEFAULT_OPTIONS,
) -> Generator[Event, None, None]:
    """Train `model` in place, and yield an event after each part worth timing.

    Every rank runs this with the same arguments and yields the same events. After `Finished`, or
    where it is closed after an evaluation, `model` holds the weights that were evaluated last.

    Args:
        model: the network, freshly initialised.
        context: what is trained and by what.
        data: the training and the evaluation images, uint8, on the CPU or, where the pipeline is
            resident, on the device.
        seed: decides data order, distortions and dropout.
        options: captured steps and checkpoints.

    Raises:
        UsageError: the batch cannot be shared among the ranks.
    """
    recipe, accelerator = context.recipe, context.accelerator
    check_batch(recipe.batch_size, len(data.train_images), accelerator.num_processes)
    _seed_global_generators(seed, accelerator.process_index)
    batches = Batches(data, context, seed)
    steps = sum(batches.steps(epoch) for epoch in range(1, recipe.epochs + 1))
    engine: Engine
    if options.graphs is not None:
        engine = options.graphs.engine(model, recipe, data, steps)
    else:
        engine = EagerEngine(model, context, data, batches, steps)
    statistics_images = choose_statistics_images(data, context, seed)
    trained_epochs = _resume(options.checkpoints, seed, engine, batches)
    yield _started(model, data, steps, accelerator.num_processes)
    samples = sum(map(batches.images, range(1, trained_epochs + 1)))
    for number in range(trained_epochs + 1, recipe.epochs + 1):
        epoch = batches.epoch(number)
        losses = engine.epoch(epoch)
        batches.end_epoch(epoch, losses)
        if number < recipe.epochs:
            batches.draw(number + 1)  # while the device works
        count = batches.images(number)
        samples += count
        loss = accelerator.reduce(losses.sum(), "sum").item() / count
        yield EpochTrained(number, batches.steps(number), count, loss)
        if recipe.evaluates_after(number):
            images = len(data.evaluation_images)
            totals = engine.count(statistics_images)
            event = evaluation_event(totals, images, accelerator, number)
            try:
                yield event
            except GeneratorExit:
                engine.finish()
                raise
        if options.checkpoints is not None and options.checkpoints.due(number, recipe.epochs):
            yield _save(options.checkpoints, seed, number, engine, batches)
    engine.finish()
    yield Finished(recipe.epochs, samples)


def _started(model: MnistCnn, data: Split, steps: int, processes: int) -> Started:
    return Started(
        parameters=parameter_count(model),
        processes=processes,
        train_samples=len(data.train_images),
        evaluation_samples=len(data.evaluation_images),
        steps=steps,
    )


def _seed_global_generators(seed: int, rank: int) -> None:
    """Seed what dropout and the loader's transforms draw from, differently on each rank.

    The order and the resident pipeline's distortions have generators of their own.
    """
    random.seed(derived_seed(seed, "rank", rank))
    torch.manual_seed(derived_seed(seed, "rank", rank))


def _resume(checkpoints: Checkpoints | None, seed: int, engine: Engine, batches: Batches) -> int:
    """Restore the checkpoint from which the run of `seed` continues, if there is one.

    Returns:
        The number of epochs already trained.
    """
    point = None if checkpoints is None else checkpoints.start(seed)
    if checkpoints is None or point is None:
        return 0
    assert isinstance(engine, EagerEngine)

    def apply(state: State) -> None:
        engine.restore(state["engine"])
        batches.losses.copy_(state["losses"])

    checkpoints.restore(point, apply)
    return point.epoch


def _save(
    checkpoints: Checkpoints, seed: int, epoch: int, engine: Engine, batches: Batches
) -> Checkpointed:
    assert isinstance(engine, EagerEngine)
    state = {"engine": engine.state(), "losses": batches.losses}
    return Checkpointed(epoch, checkpoints.write(seed, epoch, state))


def check_batch(batch_size: int, images: int, processes: int) -> None:
    """Refuse a global batch that cannot be shared evenly.

    Raises:
        UsageError: the message names the nearest number of processes that works.
    """
    if batch_size % processes:
        below = next(n for n in range(processes, 0, -1) if batch_size % n == 0)
        raise UsageError(
            f"a batch of {batch_size} images does not divide among {processes} processes; "
            f"use {below} processes"
        )
    if images % batch_size and images % batch_size < processes:
        raise UsageError(
            f"the last batch of {images % batch_size} images leaves some of {processes} processes "
            "without one; use fewer processes"
        )
