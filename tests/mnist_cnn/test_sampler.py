"""Which images an epoch takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings, strategies as st

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.errors import UsageError
from mnist_cnn.events import EpochTrained, Finished, Started
from mnist_cnn.recipe import FAST, REFERENCE
from mnist_cnn.sampler import HardExampleSampler, images_in_epoch
from mnist_cnn.train import seeded_model, train

COUNT = 1000
RECIPE = replace(FAST, batch_size=8, whole_epochs=1, selected_share=0.3, hardest_share=0.75)


@pytest.fixture(scope="module")
def accelerator() -> Accelerator:
    return Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def after_first_epoch(selection: HardExampleSampler, losses: torch.Tensor) -> None:
    order = order_of(selection, 1)
    assert sorted(order.tolist()) == list(range(len(losses)))
    selection.end_epoch(order, order, losses[order])


def order_of(selection: HardExampleSampler, epoch: int, seed: int = 0) -> torch.Tensor:
    return selection.order(selection.draw(epoch, generator(seed)))


def test_without_selection_every_epoch_takes_every_image(accelerator: Accelerator) -> None:
    assert REFERENCE.selected_share == 1
    selection = HardExampleSampler(REFERENCE, COUNT, accelerator)
    for epoch in (1, 2, 20):
        assert images_in_epoch(REFERENCE, COUNT, epoch) == COUNT
        assert sorted(order_of(selection, epoch, epoch).tolist()) == list(range(COUNT))


def test_the_hardest_are_taken_and_others_beside_them(accelerator: Accelerator) -> None:
    selection = HardExampleSampler(RECIPE, COUNT, accelerator)
    losses = torch.rand(COUNT, generator=generator(5))
    after_first_epoch(selection, losses)
    chosen = order_of(selection, 2, 1).tolist()
    assert len(chosen) == len(set(chosen)) == images_in_epoch(RECIPE, COUNT, 2) == 304
    hardest = set(losses.topk(228).indices.tolist())  # 0.75 of 304
    assert hardest <= set(chosen)
    others = set(chosen) - hardest
    assert others != set(order_of(selection, 2, 2).tolist()) - hardest
    # Nothing of their loss shows in the order, nor in who the others are.
    assert chosen[:228] != sorted(chosen[:228], key=lambda image: -losses[image])


def test_what_an_image_cost_last_is_what_counts(accelerator: Accelerator) -> None:
    selection = HardExampleSampler(RECIPE, COUNT, accelerator)
    after_first_epoch(selection, torch.arange(COUNT, dtype=torch.float32))
    second = order_of(selection, 2)
    selection.end_epoch(second, second, torch.zeros(len(second)))
    learned = set(second.tolist())
    third = set(order_of(selection, 3).tolist())
    assert set(range(COUNT)) - learned >= third - learned
    assert len(third & learned) < len(third) / 4 + 1  # of the random others alone


@settings(deadline=None, max_examples=30)
@given(
    count=st.integers(8, 300),
    share=st.floats(0.01, 1),
    hardest=st.floats(0, 1),
    batch=st.integers(1, 64),
)
def test_an_epoch_is_whole_batches_of_different_images(
    accelerator: Accelerator, count: int, share: float, hardest: float, batch: int
) -> None:
    recipe = replace(RECIPE, batch_size=batch, selected_share=share, hardest_share=hardest)
    selection = HardExampleSampler(recipe, count, accelerator)
    after_first_epoch(selection, torch.rand(count, generator=generator(1)))
    chosen = order_of(selection, 2, 2).tolist()
    assert len(chosen) == len(set(chosen)) == images_in_epoch(recipe, count, 2)
    assert len(chosen) % batch == 0 or len(chosen) == count
    assert 1 <= len(chosen) <= count


@pytest.mark.slow
def test_a_run_counts_what_it_takes(mnist: MnistData, accelerator: Accelerator) -> None:
    recipe = replace(RECIPE.with_epochs(3), memory_format="contiguous")
    data = Split(
        mnist.train_images[:200],
        mnist.train_labels[:200],
        mnist.test_images[:50],
        mnist.test_labels[:50],
    )
    events = list(train(seeded_model(recipe, 0), TrainingContext(recipe, accelerator), data, 0))
    started = next(event for event in events if isinstance(event, Started))
    trained = [event for event in events if isinstance(event, EpochTrained)]
    assert [(event.steps, event.samples) for event in trained] == [(25, 200), (8, 64), (8, 64)]
    assert started.steps == 41
    assert events[-1] == Finished(epochs=3, samples=328)


def test_from_the_start_images_never_seen_come_first(accelerator: Accelerator) -> None:
    """Until all have been seen, but for those drawn at random."""
    recipe = replace(RECIPE, whole_epochs=0, hardest_share=1.0)
    selection = HardExampleSampler(recipe, COUNT, accelerator)
    seen: set[int] = set()
    for epoch in (1, 2, 3):
        order = order_of(selection, epoch, epoch)
        assert len(order) == images_in_epoch(recipe, COUNT, epoch) == 304
        assert not seen & set(order.tolist())
        seen |= set(order.tolist())
        selection.end_epoch(order, order, torch.ones(len(order)))
    last = set(order_of(selection, 4, 4).tolist())
    assert set(range(COUNT)) - seen <= last


def test_one_epoch_alone_takes_every_image(accelerator: Accelerator) -> None:
    assert images_in_epoch(FAST.with_epochs(1), COUNT, 1) == COUNT
    assert images_in_epoch(FAST.with_epochs(2), COUNT, 1) == 128


def test_shares_that_are_none_are_refused() -> None:
    for values in ({"selected_share": 0.0}, {"selected_share": 1.5}, {"hardest_share": -0.1}):
        with pytest.raises(UsageError, match="share must be in"):
            replace(FAST, **values)  # type: ignore[arg-type]
