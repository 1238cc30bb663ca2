"""A few steps of a training by two programs, compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from accelerate import Accelerator

from mnist_cnn.augment import draw
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.engine.graph import StepProgram
from mnist_cnn.engine.torch_program import TorchProgram
from mnist_cnn.kernels.buffers import DeviceBuffers, device_buffers
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Recipe
from mnist_cnn.train import seeded_model

MakeProgram = Callable[[TrainingContext, DeviceBuffers], StepProgram]


@dataclass
class Trained:
    """A program after some steps."""

    program: StepProgram
    buffers: DeviceBuffers
    before: MnistCnn
    after: MnistCnn


@dataclass(frozen=True, kw_only=True)
class Steps:
    """What programs are compared on: steps from the same weights on the same images."""

    recipe: Recipe
    accelerator: Accelerator
    mnist: MnistData
    sizes: tuple[int, ...]
    """Number of images of each step."""
    held_out: int
    """Number of images of the evaluation after them."""


def trained(make_program: MakeProgram, steps: Steps) -> Trained:
    """A program after the steps and the evaluation."""
    recipe, accelerator, mnist = steps.recipe, steps.accelerator, steps.mnist
    data = Split(
        mnist.train_images,
        mnist.train_labels,
        mnist.test_images[: steps.held_out],
        mnist.test_labels[: steps.held_out],
    )
    context = TrainingContext(recipe, accelerator, "torch")
    buffers = device_buffers(context, data)
    buffers.images.copy_(data.train_images)
    buffers.labels.copy_(data.train_labels)
    buffers.evaluation_images.copy_(data.evaluation_images)
    buffers.evaluation_labels.copy_(data.evaluation_labels)
    count = sum(steps.sizes)
    generator = torch.Generator().manual_seed(5)
    buffers.order[:count] = torch.randperm(60_000, generator=generator)[:count].to(
        accelerator.device
    )
    buffers.distortions[:count] = draw(count, recipe, generator).to(accelerator.device).table
    buffers.learning_rates[:] = 0.001  # where rounding does not yet decide which way a ReLU goes
    buffers.average_weights[:] = 0.5
    buffers.average_weights[0] = 1
    program = make_program(context, buffers)
    before = seeded_model(recipe, 0).to(accelerator.device)
    program.load(before)
    for size in steps.sizes:
        program.train(size)
    program.evaluate()
    after = seeded_model(recipe, 1).to(accelerator.device)
    program.store(after)
    return Trained(program, buffers, before, after)


def deviations(ours: Trained, theirs: Trained) -> dict[str, float]:
    """Of each tensor's change over the steps: the difference, relative to the change."""
    start, mine, other = (t.state_dict() for t in (ours.before, ours.after, theirs.after))
    return {
        name: float((mine[name] - other[name]).norm() / (other[name] - start[name]).norm())
        for name in start
        if start[name].is_floating_point()
    }


def check_against_torch(make_program: MakeProgram, steps: Steps, most: float) -> None:
    """In float32, where both compute the same but for the order of sums: see `check_same`."""
    ours, theirs = trained(make_program, steps), trained(TorchProgram, steps)
    check_same(ours, theirs, most)
    assert int(ours.buffers.position) == sum(steps.sizes)
    assert int(ours.buffers.step) == len(steps.sizes)
    network = seeded_model(steps.recipe, 2).to(steps.accelerator.device)
    ours.program.take_statistics(network)
    ours.program.store(ours.after)
    for taken, given in zip(ours.after.buffers(), network.buffers(), strict=True):
        assert torch.equal(taken, given) or not given.is_floating_point()


def check_same(ours: Trained, theirs: Trained, most: float) -> None:
    """Fail where the change of a tensor, the losses or the evaluation differ by more than sums do.

    Args:
        most: largest difference of a tensor's change, relative to that change.
    """
    count = int(theirs.buffers.position)
    torch.testing.assert_close(
        ours.buffers.losses[:count], theirs.buffers.losses[:count], rtol=1e-3, atol=1e-3
    )
    worst = max(deviations(ours, theirs).items(), key=lambda item: item[1])
    assert worst[1] < most, worst
    assert ours.buffers.totals[0] == theirs.buffers.totals[0]
    torch.testing.assert_close(ours.buffers.totals, theirs.buffers.totals, rtol=1e-4, atol=1e-2)
