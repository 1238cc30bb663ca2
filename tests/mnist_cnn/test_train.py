"""The training loop through its public entry points, on real MNIST, a few batches at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.batches import Batch, Batches
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.errors import UsageError
from mnist_cnn.evaluation import evaluate, find_mistakes
from mnist_cnn.events import EpochTrained, Evaluated, Event, Finished, Started
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST, REFERENCE, Pipeline, Recipe
from mnist_cnn.train import check_batch, seeded_model, train

RESIDENT = replace(REFERENCE, pipeline="resident")


@pytest.fixture(scope="module")
def accelerator() -> Iterator[Accelerator]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    torch.set_num_threads(before)


def part(mnist: MnistData, train_images: int, evaluation_images: int = 250) -> Split:
    return Split(
        mnist.train_images[:train_images],
        mnist.train_labels[:train_images],
        mnist.test_images[:evaluation_images],
        mnist.test_labels[:evaluation_images],
    )


def run(
    recipe: Recipe, accelerator: Accelerator, data: Split, seed: int = 0
) -> tuple[list[Event], MnistCnn]:
    model = seeded_model(recipe, seed)
    return list(train(model, TrainingContext(recipe, accelerator), data, seed)), model


def weights(model: MnistCnn) -> Tensor:
    return torch.cat([p.detach().flatten() for p in model.state_dict().values()])


@pytest.mark.slow
def test_the_events_of_a_run(mnist: MnistData, accelerator: Accelerator) -> None:
    recipe = replace(RESIDENT.with_epochs(2), batch_size=64)
    events, _ = run(recipe, accelerator, part(mnist, 160))
    assert [type(event) for event in events] == [
        Started, EpochTrained, Evaluated, EpochTrained, Evaluated, Finished
    ]  # fmt: skip
    started, trained, evaluated, *_, finished = events
    assert started == Started(
        parameters=17_506,
        processes=1,
        train_samples=160,
        evaluation_samples=250,
        steps=6,
    )
    assert isinstance(trained, EpochTrained)
    assert (trained.epoch, trained.steps, trained.samples) == (1, 3, 160)
    assert isinstance(evaluated, Evaluated)
    assert evaluated.samples == 250
    assert finished == Finished(epochs=2, samples=320)


@pytest.mark.slow
@pytest.mark.parametrize(
    "recipe", [REFERENCE, RESIDENT, FAST], ids=lambda r: f"{r.name}-{r.pipeline}"
)
def test_reruns_on_one_thread_are_bit_identical(
    recipe: Recipe, mnist: MnistData, accelerator: Accelerator
) -> None:
    recipe = recipe.with_epochs(2)
    data = part(mnist, 130, evaluation_images=50)
    first_events, first = run(recipe, accelerator, data, seed=5)
    torch.rand(7)  # whatever happened to the global generator in between must not matter
    second_events, second = run(recipe, accelerator, data, seed=5)
    assert first_events == second_events
    assert torch.equal(weights(first), weights(second))
    other_events, other = run(recipe, accelerator, data, seed=6)
    assert other_events != first_events
    assert not torch.equal(weights(first), weights(other))


@pytest.mark.slow
def test_eighty_steps_learn(mnist: MnistData, accelerator: Accelerator) -> None:
    recipe = replace(
        FAST.with_epochs(2), whole_epochs=1, batch_size=64, average_decay=0.9, average_interval=1
    )
    events, model = run(recipe, accelerator, part(mnist, 2500))
    evaluations = [event for event in events if isinstance(event, Evaluated)]
    assert evaluations[-1].accuracy > 0.8
    # What the caller holds afterwards is the network that was evaluated: the averaged one.
    data = part(mnist, 1)
    context = TrainingContext(FAST, accelerator)
    again = evaluate(model, data.evaluation_images, data.evaluation_labels, context, epoch=2)
    assert again == evaluations[-1]


@pytest.mark.slow
def test_what_was_taken_for_what_is_the_last_evaluations_also_where_training_was_stopped(
    mnist: MnistData, accelerator: Accelerator
) -> None:
    recipe = replace(FAST.with_epochs(3), batch_size=64, average_decay=0.9, average_interval=1)
    recipe = replace(recipe, evaluate_from_epoch=1)
    data = part(mnist, 800)
    model = seeded_model(recipe, 0)
    context = TrainingContext(recipe, accelerator)
    events = train(model, context, data, 0)
    last = next(event for event in events if isinstance(event, Evaluated) and event.epoch == 2)
    events.close()
    found = find_mistakes(model, data.evaluation_images, data.evaluation_labels, context)
    assert 0 < len(found.images) == last.samples - last.correct
    labels = data.evaluation_labels.tolist()
    assert all(
        guess != labels[image] for image, guess in zip(found.images, found.predicted, strict=True)
    )


@pytest.mark.slow
def test_evaluation_counts_every_image_once_and_counts_right(
    mnist: MnistData, accelerator: Accelerator
) -> None:
    model = seeded_model(REFERENCE, 0)
    context = TrainingContext(REFERENCE, accelerator)
    event = evaluate(model, mnist.test_images[:617], mnist.test_labels[:617], context, 1)
    model.eval()
    with torch.no_grad():
        pixels = (mnist.test_images[:617].float() / 255 - 0.1307) / 0.3081
        logits = model(pixels.unsqueeze(1))
    assert event.samples == 617
    assert event.correct == int((logits.argmax(1) == mnist.test_labels[:617]).sum())
    loss = torch.nn.functional.cross_entropy(logits, mnist.test_labels[:617]).item()
    assert event.loss == pytest.approx(loss, rel=1e-4)


@pytest.mark.slow
def test_evaluations_come_where_the_recipe_fixes_them(
    mnist: MnistData, accelerator: Accelerator
) -> None:
    recipe = replace(RESIDENT.with_epochs(3), evaluate_from_epoch=3)
    events, _ = run(recipe, accelerator, part(mnist, 64))
    assert [event.epoch for event in events if isinstance(event, Evaluated)] == [3]


@pytest.mark.slow
def test_a_diverging_run_says_so(mnist: MnistData, accelerator: Accelerator) -> None:
    recipe = replace(FAST.with_epochs(1), peak_learning_rate=1e30, average_decay=0.0)
    events, _ = run(recipe, accelerator, part(mnist, 512))
    trained = next(event for event in events if isinstance(event, EpochTrained))
    assert not torch.isfinite(torch.tensor(trained.loss))


@pytest.mark.slow
@pytest.mark.parametrize("pipeline", ["resident", "loader"])
def test_the_ranks_share_each_batch(mnist: MnistData, pipeline: Pipeline) -> None:
    """What several ranks see together is what one sees, whatever their number."""
    recipe = replace(RESIDENT, pipeline=pipeline, batch_size=24)
    data = part(mnist, 100)
    one = _seen(recipe, data, 1)
    for ranks in (2, 3):
        several = _seen(recipe, data, ranks)
        assert len(several) == len(one) == 5
        for (whole, _), (shared, weights) in zip(one, several, strict=True):
            assert sorted(shared) == sorted(whole)
            assert sum(weights) == pytest.approx(ranks)
    assert sorted(label for labels, _ in one for label in labels) == sorted(
        data.train_labels.tolist()
    )


def _seen(recipe: Recipe, data: Split, ranks: int) -> list[tuple[list[int], list[float]]]:
    """Each batch's labels and weights over all ranks, of one epoch."""

    class Rank:
        device = torch.device("cpu")
        num_processes = ranks

        def __init__(self, index: int) -> None:
            self.process_index = index

    def batches_of(index: int) -> list[Batch]:
        batches = Batches(data, TrainingContext(recipe, Rank(index)), seed=3)
        batches.load()
        return list(batches.batches(batches.epoch(1)))

    per_rank = [batches_of(index) for index in range(ranks)]
    return [
        ([int(x) for batch in batches for x in batch.labels], [b.weight for b in batches])
        for batches in zip(*per_rank, strict=True)
    ]


def test_batches_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(UsageError, match="128 images does not divide among 3 processes; use 2"):
        check_batch(128, 60_000, 3)
    with pytest.raises(UsageError, match="last batch of 96 images leaves some of 128"):
        check_batch(128, 60_000, 128)
    check_batch(128, 60_000, 32)
