"""What a run trains: every choice that may change accuracy, frozen, with a sentence a field.

A recipe says nothing of the machine. What a machine may choose (device, precision, processes,
threads) is not here, except where the recipe has a wish of its own (`precision`).
Standard library only: reading or listing recipes must not import torch.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from mnist_cnn.errors import UsageError, near_match

Pipeline = Literal["loader", "resident"]
Interpolation = Literal["nearest", "bilinear"]
OptimizerName = Literal["adam", "sgd"]
MemoryFormat = Literal["contiguous", "channels_last"]
Precision = Literal["fp32", "bf16", "fp16"]
RecipePrecision = Literal["fp32", "auto"]
EvaluationSplit = Literal["test", "validation"]
Kernels = Literal["torch", "inductor", "triton", "avx512", "amx"]
"""What computes a training step: torch's operators, the same fused by torch's compiler (Inductor),
the Triton kernels of mnist_cnn.kernels.triton, or the compiled code of
mnist_cnn.kernels.native, by dot products (AVX512-BF16) or by matrix tiles (AMX-BF16)."""

TRAIN_IMAGES = 60_000
VALIDATION_IMAGES = 10_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to train the network; two runs with equal recipes solve the same problem.

    Raises:
        UsageError: from the constructor, when the values cannot be trained with.
    """

    name: str
    """The name it is asked for by."""
    epochs: int
    """Passes over the training images, or over those selected; the schedule ends with the last step
    of the last one."""
    batch_size: int
    """Images an optimizer step, over *all* processes (the global batch)."""
    norm_batch_size: int
    """Images whose statistics batch norm takes together while training: a process goes through its
    share of a batch in groups of so many ("ghost" batches, Hoffer et al. 2017), so that the number
    of processes does not change what is trained. 0: each process's share, whatever its size."""
    whole_epochs: int
    """Epochs at first that take all images, before any are selected."""
    selected_share: float
    """Share of the training images that every later epoch takes; 1: all."""
    hardest_share: float
    """Of those, the share that had the largest loss when last seen, images never seen before all
    others; the rest is drawn from the rest."""
    optimizer: OptimizerName
    """Which update rule: "adam" (Kingma & Ba 2015) or "sgd" with Nesterov momentum."""
    peak_learning_rate: float
    """The highest learning rate of the one-cycle schedule."""
    weight_decay: float
    """L2 penalty, added to the gradient of every parameter as torch.optim does."""
    warmup_fraction: float
    """Share of all steps in which the learning rate rises to its peak (OneCycleLR's pct_start)."""
    initial_divisor: float
    """Peak over initial learning rate (div_factor)."""
    final_divisor: float
    """Initial over last learning rate (final_div_factor)."""
    anneal: Literal["cos", "linear"]
    """Shape of the schedule's two flanks; the schedule is stepped once a batch."""
    momentum: float
    """SGD's Nesterov momentum, or Adam's first beta where `cycle_momentum` leaves it alone."""
    cycle_momentum: bool
    """Whether one-cycle also moves momentum between 0.95 and 0.85, as torch's default does."""
    rotation_degrees: float
    """Each image is first rotated by an angle uniform in plus or minus this."""
    translate_fraction: float
    """Then moved by up to this share of its width and of its height (whole pixels),"""
    scale_deviation: float
    """scaled by a factor uniform in 1 plus or minus this,"""
    shear_degrees: float
    """and sheared along x by an angle uniform in plus or minus this."""
    brightness: float
    """Then its brightness is multiplied by a factor uniform in 1 plus or minus this,"""
    contrast: float
    """and its contrast likewise; which of the two comes first is drawn for each image."""
    interpolation: Interpolation
    """How the two geometric steps resample: "nearest" twice, or "bilinear" of both at once."""
    pipeline: Pipeline
    """"loader": torchvision transforms in a DataLoader; "resident": all images on the device."""
    pixel_mean: float
    """Subtracted from pixels scaled to 0..1."""
    pixel_deviation: float
    """What the difference is divided by."""
    dropout: float
    """Probability with which an activation after each of the four 3x3 blocks is zeroed."""
    label_smoothing: float
    """Share of the label's mass spread over all ten classes in the training loss."""
    average_decay: float
    """Decay of an exponential moving average of the weights, evaluated in their place; 0: none."""
    average_interval: int
    """Steps between two updates of that average."""
    precision: RecipePrecision
    """"fp32", or "auto": bfloat16 autocast where the hardware multiplies it faster, else fp32."""
    memory_format: MemoryFormat
    """Layout of activations wanted; a device on which it is slow or wrong uses contiguous."""
    evaluate_from_epoch: int
    """The first epoch followed by an evaluation; every later one is too."""
    evaluation_split: EvaluationSplit
    """"test": train on 60,000, evaluate on the test set. "validation": train on the first 50,000
    training images and evaluate on the last 10,000 of them (for tuning; never a result)."""

    def __post_init__(self) -> None:
        """Refuse what cannot be trained with, in one line."""
        if self.epochs < 1:
            raise UsageError(f"--epochs must be at least 1, not {self.epochs}")
        if self.batch_size < 1:
            raise UsageError(f"the batch size must be at least 1, not {self.batch_size}")
        if self.norm_batch_size < 0:
            raise UsageError(
                f"batch norm's batch size must be 0 or more, not {self.norm_batch_size}"
            )
        if self.whole_epochs < 0:
            raise UsageError(f"whole epochs must be 0 or more, not {self.whole_epochs}")
        if not 0 < self.selected_share <= 1 or not 0 <= self.hardest_share <= 1:
            raise UsageError("the selected share must be in (0, 1], the hardest share in [0, 1]")
        if not 1 <= self.evaluate_from_epoch <= self.epochs:
            raise UsageError(
                f"the first evaluation (epoch {self.evaluate_from_epoch}) must lie within "
                f"the {self.epochs} epochs"
            )
        if not 0 <= self.average_decay < 1:
            raise UsageError(f"the average's decay must be in [0, 1), not {self.average_decay}")
        if self.average_interval < 1:
            raise UsageError("the average's interval must be at least 1 step")

    @property
    def train_images(self) -> int:
        """Training images of this recipe's split."""
        held_out = VALIDATION_IMAGES if self.evaluation_split == "validation" else 0
        return TRAIN_IMAGES - held_out

    def evaluates_after(self, epoch: int) -> bool:
        """Whether this recipe fixes an evaluation after that epoch."""
        return epoch >= self.evaluate_from_epoch

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe, its schedule stretched over another number of epochs."""
        return replace(
            self, epochs=epochs, evaluate_from_epoch=max(1, min(self.evaluate_from_epoch, epochs))
        )

    def with_batch_size(self, batch_size: int) -> Recipe:
        """The same recipe, its steps taken over another number of images.

        The peak learning rate follows: in proportion for SGD (Goyal et al. 2017), by the square
        root of the proportion for Adam (Malladi et al. 2022). Nothing else does.

        Raises:
            UsageError: below 1.
        """
        if batch_size < 1:
            raise UsageError(f"--batch-size must be at least 1, not {batch_size}")
        ratio = batch_size / self.batch_size
        factor = ratio if self.optimizer == "sgd" else math.sqrt(ratio)
        return replace(
            self, batch_size=batch_size, peak_learning_rate=self.peak_learning_rate * factor
        )

    def values(self) -> dict[str, Any]:
        """Every field and its value, as a record keeps them."""
        return asdict(self)


REFERENCE = Recipe(
    name="reference",
    epochs=20,
    batch_size=128,
    norm_batch_size=0,
    whole_epochs=0,
    selected_share=1.0,
    hardest_share=0.0,
    optimizer="adam",
    peak_learning_rate=0.01,
    weight_decay=1e-4,
    warmup_fraction=0.2,
    initial_divisor=10.0,
    final_divisor=100.0,
    anneal="cos",
    momentum=0.9,
    cycle_momentum=True,
    rotation_degrees=7.0,
    translate_fraction=0.1,
    scale_deviation=0.1,
    shear_degrees=5.0,
    brightness=0.2,
    contrast=0.2,
    interpolation="nearest",
    pipeline="loader",
    pixel_mean=0.1307,
    pixel_deviation=0.3081,
    dropout=0.008,
    label_smoothing=0.0,
    average_decay=0.0,
    average_interval=1,
    precision="fp32",
    memory_format="contiguous",
    evaluate_from_epoch=1,
    evaluation_split="test",
)
"""The closed division's recipe: the seed text's, its schedule stepped per batch as there."""

FAST = replace(
    REFERENCE,
    name="fast",
    epochs=24,
    norm_batch_size=16,
    selected_share=0.1,
    hardest_share=0.8,
    optimizer="sgd",
    peak_learning_rate=0.6,
    weight_decay=3e-4,
    final_divisor=1e4,
    cycle_momentum=False,
    brightness=0.0,
    contrast=0.0,
    interpolation="bilinear",
    pipeline="resident",
    dropout=0.0,
    average_decay=0.95,
    average_interval=4,
    precision="auto",
    memory_format="channels_last",
    evaluate_from_epoch=24,
)
"""The open division's recipe: twenty-four times a tenth of the images, first those not yet seen,
then those that are still hard, and some others beside them; averaged weights, bf16. As many images
as 2.4 whole epochs have."""

FAST_GPU = replace(
    FAST,
    name="fast-gpu",
    epochs=28,
    batch_size=256,
    norm_batch_size=0,
    peak_learning_rate=0.9,
    average_interval=2,
    evaluate_from_epoch=28,
)
"""`fast` for a GPU, which wants larger batches and has batch norm take all of one at once: as many
images as 2.8 whole epochs have."""

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (FAST, FAST_GPU, REFERENCE)}
DEFAULT_RECIPE = FAST.name

FREE_IN_CLOSED = ("pipeline", "memory_format")
"""Fields that change how the reference is computed, not what: both pipelines draw the same
distribution, and a layout is arithmetic in another order."""


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: no recipe has it; the message lists those there are and the nearest.
    """
    try:
        return RECIPES[name]
    except KeyError:
        raise UsageError(
            f"unknown recipe {name!r}{near_match(name, RECIPES)}; "
            f"there are: {', '.join(sorted(RECIPES))}"
        ) from None


def with_overrides(
    recipe: Recipe, epochs: int | None, pipeline: str | None, batch_size: int | None = None
) -> Recipe:
    """The recipe with what a command line asked to have otherwise; None leaves it as it is.

    Raises:
        UsageError: the pipeline is unknown, or the epochs or batches cannot be trained.
    """
    if batch_size is not None:
        recipe = recipe.with_batch_size(batch_size)
    if epochs is not None:
        recipe = recipe.with_epochs(epochs)
    match pipeline:
        case None:
            return recipe
        case "loader" | "resident":
            return replace(recipe, pipeline=pipeline)
    known = get_args(Pipeline)
    raise UsageError(
        f"unknown pipeline {pipeline!r}{near_match(pipeline, known)}; there are: {', '.join(known)}"
    )


def division(recipe: Recipe) -> Literal["closed", "open"]:
    """Whether a recipe is the reference ("closed") in every field that decides the outcome."""
    free = {field: getattr(REFERENCE, field) for field in FREE_IN_CLOSED}
    return "closed" if replace(recipe, **free) == REFERENCE else "open"
