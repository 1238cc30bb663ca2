"""Whether what is about to be timed trains as the mathematics says: compares three whole steps.

Some devices trained fast and computed something wrong. On MPS it was batch norm's gradient with
channels last (https://github.com/pytorch/pytorch/issues/175189) and arithmetic on views into a
table (https://github.com/pytorch/pytorch/issues/191929). So the very programs that will be timed
(captured, fused, compiled or torch's) make three steps: they choose the images and distort them,
go forward and backward, update the weights by the schedule, average them, take batch norm's
statistics and evaluate. `mnist_cnn.engine.judge` does the same on the CPU.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.batches import Batch, Batches, Epoch
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.eager import EagerEngine, Engine
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.judge import Judge
from mnist_cnn.kernels.native import KINDS
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Kernels, OptimizerName, Precision, Recipe
from mnist_cnn.sampler import steps_in_epoch
from mnist_cnn.train import seeded_model

STEPS = 3
"""Steps that are compared: the first has no momentum, the average needs a second one."""
IMAGES = 64
"""Most images of a step, unless other code would then be compared than is timed; in a smaller one
less rounding averages out: see `ALLOWED`."""
EVALUATED = 64
"""Images of the evaluation."""
STATISTICS = 64
"""Images of batch norm's statistics, where the recipe takes them from undistorted images."""
IMAGES_ALLOWED = 0.1
"""Allowed difference of the distorted images: rounding may choose another nearest pixel."""
ALLOWED: dict[Precision, float] = {"fp32": 0.1, "bf16": 0.5, "fp16": 0.2}
"""Allowed difference of a gradient, for rounding. A rounding error e lets a share of activations
that grows with e be cut off, or pooled, here and not there; so gradients differ by about twice the
root of e. Right code on CPUs, with four seeds, differed by up to 0.17 in bf16 (one parameter's
0.28) and by 0.04 in fp32 (0.09) with another algorithm for convolutions."""
LOSS_ALLOWED, STATISTICS_ALLOWED, STEP_ALLOWED = 0.1, 0.2, 0.8
"""Allowed differences of losses, of batch norm's statistics and of a step's length, as shares of a
gradient's. None exceeded 0.013, 0.026 and 0.21 in bf16 and 0.005, 0.005 and 0.025 in fp32."""
_GROWN, _MOST_GROWN = 4.0, 0.8
"""Allowed difference of the weights' change in three steps, as a multiple of the gradient's, and
the most: with large rates every step multiplies what differs (up to 0.40 in bf16, 0.17 in fp32)."""
_OF_A_PART, _MOST_OF_A_PART = 2.0, 0.5
"""The same for one parameter's gradient, for the average and for the evaluation."""
_ADAM_PARAMETER_ALLOWED = 1.5
"""Most that is allowed with Adam: all signs wrong are 2."""
_PEAKS: dict[OptimizerName, float] = {"sgd": 0.9, "adam": 0.01}
_LEAST_DIVISOR = 10.0
"""The largest peak of the learning rate in these steps, and its least ratio to the first rate: they
are those of the recipes here."""
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
    """Largest of the lengths of the updates of the weights."""
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
    allowed: float
    """Largest allowed difference of the gradient; see `LOSS_ALLOWED` for others."""
    parameter_allowed: float
    """Largest allowed difference of the gradient of one parameter."""

    @property
    def problem(self) -> str | None:
        """Which difference is too large, the most specific first; None where none is."""
        allowed = self.allowed
        part_allowed = min(_MOST_OF_A_PART, _OF_A_PART * allowed)
        weights_allowed = min(_MOST_GROWN, _GROWN * allowed)
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
        if context.kernels == "triton":
            context = replace(context, kernels="torch")
    is_fixed = graphs is not None or context.kernels == "inductor"
    recipe = _probed_recipe(context, is_fixed=is_fixed)
    images = _images_difference(recipe, context, data)
    allowed = ALLOWED[precision]
    parameter_allowed = min(_MOST_OF_A_PART, _OF_A_PART * allowed)
    if recipe.optimizer == "adam":
        # Its first step is the sign of the gradient: where that is below the rounding, any sign. If
        # a share of the signs is wrong, the update is off by twice the root of that share; of a
        # layer's 18 scales six are easily wrong.
        allowed = math.sqrt(allowed)
        parameter_allowed = min(_ADAM_PARAMETER_ALLOWED, 3 * allowed)
    probed = _probed_data(data, recipe)
    judged = _Judged(recipe, probed, context.accelerator.num_processes)
    turns = torch.arange(len(probed.evaluation_images)) % EVALUATED
    probed = replace(probed, evaluation_labels=judged.predicted[turns])
    try:
        with _unscaled(context.accelerator):
            followed = _Followed(replace(context, recipe=recipe), probed, judged, graphs)
    finally:
        context.accelerator.free_memory()
    return _compared(judged, followed, images, (allowed, parameter_allowed))


def _probed_recipe(context: TrainingContext, *, is_fixed: bool) -> Recipe:
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


def _probed_data(data: Split, recipe: Recipe) -> Split:
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


State = dict[str, Tensor]
"""Weights and statistics by name, float64, on the CPU."""


def _total_steps(recipe: Recipe) -> int:
    """Optimizer steps of a whole run; at least those that are compared."""
    epochs = range(1, recipe.epochs + 1)
    steps = (steps_in_epoch(recipe, recipe.train_images, epoch) for epoch in epochs)
    return max(sum(steps), STEPS)


class _Judged:
    """The judge's steps, which the other side then follows.

    Args:
        recipe: what is trained.
        data: few images; the labels of those to evaluate on do not matter.
        ranks: how many ranks the other side has.
    """

    def __init__(self, recipe: Recipe, data: Split, ranks: int) -> None:
        cpu = torch.device("cpu")
        context = TrainingContext(recipe, cast(Accelerator, _SingleRank(cpu)))
        batches = Batches(data, context, 0)
        judge = Judge(recipe, seeded_model(recipe, 0), data, _total_steps(recipe), ranks)
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


class _Followed:
    """The same steps by what will be timed.

    Args:
        context: what is trained.
        data: few images; those to evaluate on have the labels that the judge predicts.
        judged: the steps.
        graphs: see `compare_with_cpu`.
    """

    def __init__(
        self, context: TrainingContext, data: Split, judged: _Judged, graphs: GraphCache | None
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
            self.losses.append(losses.float().cpu())
            self.trained.append(_state(engine.network(averaged=False)))
        self.averaged = _state(engine.network(averaged=True))
        pixels = _statistics_images(recipe, data).to(accelerator.device)
        correct, loss, images = accelerator.reduce(engine.count(pixels), "sum").tolist()
        self.evaluated = _state(engine.network(averaged=True))
        self.correct, self.evaluation_loss = correct / images, loss / images


def _compared(
    judged: _Judged, followed: _Followed, images: float, allowed: tuple[float, float]
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
        allowed=allowed[0],
        parameter_allowed=allowed[1],
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


def _images_difference(recipe: Recipe, context: TrainingContext, data: Split) -> float:
    """Difference of the distorted images of a batch; every rank distorts the same ones."""
    recipe = replace(recipe, batch_size=IMAGES, selected_share=1)
    kernels: Kernels = context.kernels if context.kernels in KINDS else "torch"
    cpu = torch.device("cpu")
    expected = _second_batch(recipe, data, cpu, "torch").images
    actual = _second_batch(recipe, data, context.accelerator.device, kernels).images
    return _difference(expected, actual.to(cpu))


class _SingleRank:
    """The parts of an accelerator that `Batches` uses, for one rank that takes all images."""

    num_processes, process_index = 1, 0

    def __init__(self, device: torch.device) -> None:
        self.device = device


def _second_batch(recipe: Recipe, data: Split, device: torch.device, kernels: Kernels) -> Batch:
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
