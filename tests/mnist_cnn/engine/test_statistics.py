"""Batch norm's statistics before an evaluation, by each kind of kernels."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor

from mnist_cnn.augment import normalise
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine.statistics import choose_statistics_images, measure_statistics
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels.native import KINDS, unavailable_reason
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST, Kernels, Recipe
from mnist_cnn.train import seeded_model, train

RECIPE = replace(FAST, statistics_images=520)
"""Two whole batches and a part of one."""


@pytest.fixture
def accelerator() -> Iterator[Accelerator]:
    AcceleratorState._reset_state(reset_partial_state=True)
    yield Accelerator(cpu=True, mixed_precision="no")
    AcceleratorState._reset_state(reset_partial_state=True)


def part(mnist: MnistData) -> Split:
    return Split(
        mnist.train_images[:1500],
        mnist.train_labels[:1500],
        mnist.test_images[:300],
        mnist.test_labels[:300],
    )


def statistics(network: MnistCnn) -> list[Tensor]:
    return [value.clone() for value in network.buffers() if value.is_floating_point()]


def measured(accelerator: Accelerator, kernels: Kernels, mnist: MnistData) -> MnistCnn:
    context = TrainingContext(RECIPE, accelerator, kernels)
    network = seeded_model(RECIPE, 0)
    measure_statistics(network, choose_statistics_images(part(mnist), context, 0), context)
    return network


@pytest.mark.slow
def test_they_are_the_means_and_variances_of_the_images_batch_by_batch(
    mnist: MnistData, accelerator: Accelerator
) -> None:
    network = measured(accelerator, "torch", mnist)
    context = TrainingContext(RECIPE, accelerator, "torch")
    pixels = choose_statistics_images(part(mnist), context, 0)
    assert len(pixels) == 520
    with torch.no_grad():
        outputs = network.stem.conv(normalise(pixels, RECIPE).unsqueeze(1)).double()
    batches = outputs.split(256)
    for computed, expected in (
        (network.stem.norm.running_mean, [batch.mean((0, 2, 3)) for batch in batches]),
        (network.stem.norm.running_var, [batch.var((0, 2, 3)) for batch in batches]),
    ):
        assert computed is not None
        torch.testing.assert_close(computed.double(), sum(expected) / 3, rtol=1e-3, atol=1e-3)


def test_only_they_change(mnist: MnistData, accelerator: Accelerator) -> None:
    before = seeded_model(RECIPE, 0)
    network = measured(accelerator, "torch", mnist)
    assert network.training
    for name, weights in before.named_parameters():
        assert torch.equal(weights, network.get_parameter(name)), name
    for old, new in zip(statistics(before), statistics(network), strict=True):
        assert not torch.equal(old, new)


def test_they_draw_nothing_from_the_generator_of_the_training(
    mnist: MnistData, accelerator: Accelerator
) -> None:
    context = TrainingContext(RECIPE, accelerator, "torch")
    network = seeded_model(RECIPE, 0)
    state = torch.get_rng_state()
    measure_statistics(network, choose_statistics_images(part(mnist), context, 0), context)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.slow
@pytest.mark.parametrize("kernels", KINDS)
def test_compiled_code_measures_the_same(
    kernels: Kernels, mnist: MnistData, accelerator: Accelerator
) -> None:
    if reason := unavailable_reason(kernels):
        pytest.skip(reason)
    ours = statistics(measured(accelerator, kernels, mnist))
    theirs = statistics(measured(accelerator, "torch", mnist))
    for one, other in zip(ours, theirs, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()  # bfloat16 between layers


class Rank:
    """One of several ranks: its reduce keeps the share, which the test then adds up."""

    def __init__(self, accelerator: Accelerator, index: int, count: int) -> None:
        self.device, self.autocast = accelerator.device, accelerator.autocast
        self.process_index, self.num_processes = index, count

    def reduce(self, value: Tensor, reduction: str) -> Tensor:
        assert reduction == "mean"
        return value / self.num_processes


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 4])
def test_ranks_together_measure_what_one_does(
    ranks: int, mnist: MnistData, accelerator: Accelerator
) -> None:
    """Of three batches; the last of four ranks has none."""
    shares = [
        statistics(measured(cast(Any, Rank(accelerator, index, ranks)), "torch", mnist))
        for index in range(ranks)
    ]
    whole = statistics(measured(accelerator, "torch", mnist))
    for parts, expected in zip(zip(*shares, strict=True), whole, strict=True):
        torch.testing.assert_close(torch.stack(parts).sum(0), expected)


def trained(recipe: Recipe, mnist: MnistData, accelerator: Accelerator) -> MnistCnn:
    context = TrainingContext(recipe, accelerator, "torch")
    model = seeded_model(recipe, 0)
    list(train(model, context, part(mnist), 0))
    return model


@pytest.mark.slow
def test_an_evaluation_uses_them_and_the_model_keeps_them(
    mnist: MnistData, accelerator: Accelerator
) -> None:
    recipe = RECIPE.with_epochs(2)
    with_them = trained(recipe, mnist, accelerator)
    without = trained(replace(recipe, statistics_images=0), mnist, accelerator)
    for one, other in zip(with_them.parameters(), without.parameters(), strict=True):
        assert torch.equal(one, other)  # training does not depend on them
    context = TrainingContext(recipe, accelerator, "torch")
    measure_statistics(without, choose_statistics_images(part(mnist), context, 0), context)
    for kept, again in zip(statistics(with_them), statistics(without), strict=True):
        assert torch.equal(kept, again)


def test_a_negative_number_of_images_is_refused() -> None:
    with pytest.raises(UsageError, match="statistics images must be 0 or more, not -1"):
        replace(FAST, statistics_images=-1)
