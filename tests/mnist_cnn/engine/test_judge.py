"""The judge computes by hand what torch's optimizers, schedule and the engine compute."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator

from mnist_cnn.batches import Batches
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.engine.eager import EagerEngine
from mnist_cnn.engine.judge import Judge
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE, Recipe
from mnist_cnn.train import seeded_model

pytestmark = pytest.mark.usefixtures("fresh_accelerate")
STEPS = 12
"""Steps of the run, whose learning rate rises in the first ones."""


def distance(expected: MnistCnn, actual: MnistCnn, initial: MnistCnn) -> float:
    """Relative difference of the changes of all weights and statistics."""
    states = [network.state_dict() for network in (expected, actual, initial)]
    flat = [torch.cat([v.flatten().double() for v in s.values()]) for s in states]
    return float((flat[0] - flat[1]).norm() / (flat[0] - flat[2]).norm())


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe",
    [
        replace(FAST, memory_format="contiguous"),
        replace(FAST, memory_format="contiguous", average_decay=0.0, statistics_images=0),
        replace(FAST_GPU, memory_format="contiguous"),
        FAST_GPU,
        replace(REFERENCE, dropout=0.0, pipeline="resident", label_smoothing=0.1),
    ],
    ids=["fast", "fast-unaveraged", "fast-gpu", "fast-gpu-channels-last", "reference"],
)
def test_four_steps_are_those_of_the_engine(recipe: Recipe, mnist: MnistData) -> None:
    recipe = replace(recipe, batch_size=32, average_interval=2, selected_share=1.0)
    whole = mnist.split("test")
    data = replace(
        whole, train_images=whole.train_images[:32], train_labels=whole.train_labels[:32]
    )
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    context = TrainingContext(recipe, accelerator)
    batches = Batches(data, context, 0)
    engine = EagerEngine(seeded_model(recipe, 0), context, data, batches, STEPS)
    # The same layout: in another torch has other algorithms, and the network's kinks do the rest.
    is_last = recipe.memory_format == "channels_last"
    layout = torch.channels_last if is_last else torch.contiguous_format
    judge = Judge(recipe, seeded_model(recipe, 0), data, STEPS, layout=layout)
    initial = seeded_model(recipe, 0)
    for number in range(1, 5):
        epoch = batches.epoch(number)
        assert epoch.distortions is not None
        losses = engine.epoch(epoch)
        batches.end_epoch(epoch, losses)
        expected = judge.step(epoch.order, epoch.distortions)
        torch.testing.assert_close(expected, losses, rtol=1e-3, atol=1e-4)
        if number == 1:
            assert distance(judge.network, engine.network(averaged=False), initial) < 1e-4
    # Rounding grows from step to step: an activation is cut off here and not there.
    assert distance(judge.network, engine.network(averaged=False), initial) < 0.02
    assert distance(judge.evaluated, engine.network(averaged=True), initial) < 0.02
