"""Whether what is about to be timed trains as the mathematics says: compares three whole steps.

Some devices trained fast and computed something wrong. On MPS it was batch norm's gradient with
channels last (https://github.com/pytorch/pytorch/issues/175189) and arithmetic on views into a
table (https://github.com/pytorch/pytorch/issues/191929). So the very programs that will be timed
(captured, fused, compiled or torch's) make three steps: they choose the images and distort them,
go forward and backward, update the weights by the schedule, average them, take batch norm's
statistics and evaluate. `mnist_cnn.engine.judge` does the same on the CPU. Code that is captured
for other numbers of steps or of images is compared as well.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.kernels.native import KINDS
from mnist_cnn.model import MnistCnn
from mnist_cnn.parity_steps import (
    EVALUATED,
    IMAGES,
    STEPS,
    FollowedSteps,
    JudgedSteps,
    State,
    last_batch_of,
    probed_data,
    probed_recipe,
    second_batch,
)
from mnist_cnn.recipe import WHOLE_STEP_KERNELS, Kernels, Precision, Recipe

IMAGES_ALLOWED = 0.1
"""Allowed difference of the distorted images: rounding may choose another nearest pixel."""
ALLOWED: dict[Precision, float] = {"fp32": 0.1, "bf16": 0.5, "fp16": 0.2}
"""Allowed difference of a gradient, for rounding. A rounding error e lets a share of activations
that grows with e be cut off, or pooled, here and not there; so gradients differ by about twice the
root of e. Right code on CPUs, with three or four seeds, differed by up to 0.17 in bf16 (one
parameter's 0.28) and by 0.04 in fp32 (0.09) with another algorithm for convolutions."""
LOSS_ALLOWED, STATISTICS_ALLOWED, STEP_ALLOWED = 0.1, 0.2, 0.8
"""Allowed differences of losses, of batch norm's statistics and of a step's length, as shares of a
gradient's. None exceeded 0.013, 0.026 and 0.21 in bf16 and 0.005, 0.005 and 0.025 in fp32."""
_WEIGHTS_ALLOWED, _MOST_OF_WEIGHTS = 4.0, 0.8
"""Allowed difference of the weights' change in three steps, as a multiple of the gradient's, and
its upper limit: with large rates every step multiplies what differs (up to 0.40 in bf16, 0.17 in
fp32)."""
_PART_ALLOWED, _MOST_OF_PART = 2.0, 0.5
"""The same for one parameter's gradient, for the average and for the evaluation."""
_ADAM_PARAMETER_ALLOWED = 1.5
"""Most that is allowed with Adam: all signs wrong are 2."""
_SCALE = 128.0
"""Factor of fp16's losses in these steps."""
_FLOOR = 0.005
"""Differences of a parameter's gradient are relative to at least this share of the whole one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parity:
    """Relative differences of a device from the CPU in fp32; lengths are Euclidean."""

    images: float
    """Of a batch's distorted, normalised images."""
    selection: float
    """Share of the images with the largest losses that an epoch did not take."""
    loss: float
    """Of the mean loss of a step, the largest of all steps."""
    image_losses: float
    """Of the losses by which later images are chosen; 0 where none are."""
    step: float
    """Of the length of an update of the weights, the largest of all steps."""
    gradient: float
    """Of the first update of all parameters, made as long: of their gradients, for SGD."""
    parameter: str
    """Name of the parameter whose gradient differed most."""
    parameter_gradient: float
    """Of that parameter's gradient."""
    weights: float
    """Of the change of the weights in all steps."""
    average: float
    """Of the change of the averaged weights in all steps."""
    statistics: float
    """Of batch norm's statistics in the evaluation, the larger one of means and variances."""
    evaluation: float
    """Share of the images to evaluate on that are classified otherwise."""
    evaluation_loss: float
    """Of the mean loss of the evaluation."""
    graphs: float
    """Of steps that one graph replays together from the same steps replayed one by one, which were
    compared: of weights, average or losses, the largest; 0 where no graph has several."""
    last_batch: float
    """Of the change of the weights by a smaller last batch; 0 where no graph is made for one."""
    allowed: float
    """Largest allowed difference of the gradient; see `LOSS_ALLOWED` for others."""
    parameter_allowed: float
    """Largest allowed difference of the gradient of one parameter."""

    @property
    def problem(self) -> str | None:
        """Which difference is too large, the most specific first; None where none is."""
        allowed = self.allowed
        part_allowed = min(_MOST_OF_PART, _PART_ALLOWED * allowed)
        weights_allowed = min(_MOST_OF_WEIGHTS, _WEIGHTS_ALLOWED * allowed)
        bounds = (
            ("the images of a batch", self.images, IMAGES_ALLOWED),
            ("the choice of images by their losses", self.selection, 0.0),
            (f"the gradient of {self.parameter}", self.parameter_gradient, self.parameter_allowed),
            ("the gradient", self.gradient, allowed),
            ("the length of an optimizer step", self.step, STEP_ALLOWED * allowed),
            ("the loss", self.loss, LOSS_ALLOWED * allowed),
            ("the loss of single images", self.image_losses, LOSS_ALLOWED * allowed),
            (f"the change of the weights in {STEPS} steps", self.weights, weights_allowed),
            ("the average of the weights", self.average, part_allowed),
            ("what batch norm knows of the images", self.statistics, STATISTICS_ALLOWED * allowed),
            ("the evaluation", self.evaluation, part_allowed),
            ("the loss of the evaluation", self.evaluation_loss, LOSS_ALLOWED * allowed),
            ("what several steps at once train", self.graphs, weights_allowed),
            ("what a smaller last batch trains", self.last_batch, weights_allowed),
        )
        for quantity, difference, most in bounds:
            # "not <=" also refuses NaN, which ">" would let pass.
            if not difference <= most:
                return f"{quantity} is {difference:.0%} off the CPU's, where {most:.0%} is allowed"
        return None


def compare_with_cpu(
    context: TrainingContext,
    data: Split,
    precision: Precision,
    graphs: GraphCache | None = None,
) -> Parity | None:
    """Compare three steps of what will be timed with those of the judge; every rank does.

    Captured code that was compared is what trains from then on: no other replaces it.

    Args:
        context: what will be trained.
        data: some of its images are used.
        precision: the accelerator's.
        graphs: the engine of captured or fused steps that will be timed; None for the eager one.

    Returns:
        The differences; None where the CPU's operators would be compared with themselves.
    """
    is_cpu = context.accelerator.device.type == "cpu"
    if is_cpu and context.kernels == "torch" and precision == "fp32" and graphs is None:
        return None
    if graphs is not None and context.recipe.dropout > 0:
        graphs = None  # what is captured draws its dropout, which the judge cannot
        if context.kernels in WHOLE_STEP_KERNELS:
            context = replace(context, kernels="torch")
    is_fixed = graphs is not None or context.kernels == "inductor"
    recipe = probed_recipe(context, is_fixed=is_fixed)
    images = _images_difference(recipe, context, data)
    allowed = ALLOWED[precision]
    parameter_allowed = min(_MOST_OF_PART, _PART_ALLOWED * allowed)
    if recipe.optimizer == "adam":
        # Its first step is the sign of the gradient: where that is below the rounding, any sign. If
        # a share of the signs is wrong, the update is off by twice the root of that share; of a
        # layer's 18 scales six are easily wrong.
        allowed = math.sqrt(allowed)
        parameter_allowed = min(_ADAM_PARAMETER_ALLOWED, 3 * allowed)
    probed = probed_data(data, recipe)
    last_batch = last_batch_of(context.recipe) if graphs is not None else 0
    # Channels last takes a CPU about 0.7 of the time. Where a CPU itself is compared, its recipes
    # may use that, and a fault of it would be on both sides.
    layout = torch.contiguous_format if is_cpu else torch.channels_last
    judged = JudgedSteps(recipe, probed, context.accelerator.num_processes, last_batch, layout)
    turns = torch.arange(len(probed.evaluation_images)) % EVALUATED
    probed = replace(probed, evaluation_labels=judged.predicted[turns])
    try:
        with _unscaled(context.accelerator):
            followed = FollowedSteps(replace(context, recipe=recipe), probed, judged, graphs)
    finally:
        context.accelerator.free_memory()
    if graphs is not None:
        graphs.settle()
    return _compared(judged, followed, images, (allowed, parameter_allowed))


@contextmanager
def _unscaled(accelerator: Accelerator) -> Iterator[None]:
    """Scale fp16's losses by little: the first steps must not be skipped because they overflow."""
    scaler = accelerator.scaler
    if scaler is None:
        yield
        return
    before = scaler.state_dict()
    scaler.load_state_dict(before | {"scale": _SCALE})
    try:
        yield
    finally:
        scaler.load_state_dict(before)


def _compared(
    judged: JudgedSteps, followed: FollowedSteps, images: float, allowed: tuple[float, float]
) -> Parity:
    """Compare everything.

    Args:
        judged: the judge's side.
        followed: the other side.
        images: see `Parity`.
        allowed: `Parity.allowed` and `Parity.parameter_allowed`.
    """
    parameters = dict(MnistCnn().named_parameters())
    names, sizes = list(parameters), [p.numel() for p in parameters.values()]

    def change(state: State, since: State = judged.initial) -> Tensor:
        return torch.cat([(state[name] - since[name]).flatten() for name in names])

    def steps(trained: list[State]) -> list[Tensor]:
        before = [judged.initial, *trained[:-1]]
        return [change(after, since) for after, since in zip(trained, before, strict=True)]

    pairs = list(zip(steps(judged.trained), steps(followed.trained), strict=True))
    # Along the judge's: a wrong learning rate is no wrong gradient, nor is a wrong momentum.
    lengths = [float(ours @ theirs / theirs.square().sum()) for theirs, ours in pairs]
    (expected, first), scale = pairs[0], lengths[0]
    gradient = first / scale if scale > 0 else first
    differences = _parameter_differences(expected.split(sizes), gradient.split(sizes))
    by_name = dict(zip(names, differences, strict=True))
    # A NaN counts as the largest.
    worst = max(by_name, key=lambda name: (math.isnan(by_name[name]), by_name[name]))
    last = (change(side.last_trained) for side in (judged, followed))
    losses = list(zip(judged.losses, followed.losses, strict=True))
    single = [_difference(x, y) for x, y in losses if len(x) == len(y)]
    return Parity(
        images=images,
        selection=followed.selection,
        image_losses=_largest(single),
        loss=_largest([abs(float(y.mean() / x.mean()) - 1) for x, y in losses]),
        step=_largest([abs(length - 1) for length in lengths]),
        gradient=_difference(expected, gradient),
        parameter=worst,
        parameter_gradient=by_name[worst],
        weights=_difference(change(judged.trained[-1]), change(followed.trained[-1])),
        average=_difference(change(judged.averaged), change(followed.averaged)),
        statistics=_statistics_difference(judged.evaluated, followed.evaluated),
        evaluation=1 - followed.correct,
        evaluation_loss=abs(followed.evaluation_loss / judged.evaluation_loss - 1),
        graphs=followed.graphs,
        last_batch=0.0 if judged.last_batch is None else _difference(*last),
        allowed=allowed[0],
        parameter_allowed=allowed[1],
    )


def _images_difference(recipe: Recipe, context: TrainingContext, data: Split) -> float:
    """Difference of the distorted images of a batch; every rank distorts the same ones."""
    recipe = replace(recipe, batch_size=IMAGES, selected_share=1)
    kernels: Kernels = context.kernels if context.kernels in KINDS else "torch"
    cpu = torch.device("cpu")
    expected = second_batch(recipe, data, cpu, "torch").images
    actual = second_batch(recipe, data, context.accelerator.device, kernels).images
    return _difference(expected, actual.to(cpu))


def _largest(values: list[float]) -> float:
    """The largest one; NaN if one is; 0 without any."""
    return max(values, key=lambda value: (math.isnan(value), value), default=0.0)


def _difference(expected: Tensor, actual: Tensor) -> float:
    """Length of the difference, relative to the length of the expected one."""
    return float((expected - actual).norm() / expected.norm())


def _statistics_difference(expected: State, actual: State) -> float:
    """Difference of batch norm's statistics, the larger one of means and variances."""

    def difference(kind: str) -> float:
        names = [name for name in expected if name.endswith(kind)]
        return _difference(
            torch.cat([expected[name] for name in names]),
            torch.cat([actual[name] for name in names]),
        )

    return _largest([difference("running_mean"), difference("running_var")])


def _parameter_differences(expected: tuple[Tensor, ...], actual: tuple[Tensor, ...]) -> list[float]:
    """The same for each parameter; a short gradient's is relative to a share of the whole one."""
    shortest = _FLOOR * float(torch.cat(expected).norm())
    return [
        float((first - second).norm()) / max(float(first.norm()), shortest)
        for first, second in zip(expected, actual, strict=True)
    ]
