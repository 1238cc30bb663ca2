"""What a run trains: every choice that may change accuracy, as one frozen value.

A recipe does not depend on the machine. Device, processes and threads are not part of it; of the
precision it only says what it allows.
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
NativeKernels = Literal["amx", "avx512-bf16", "avx512", "avx2", "neon-bf16", "neon", "scalar"]
"""Compiled code of mnist_cnn.kernels.native, by the instruction set that it uses."""
FP32_PRODUCTS: tuple[NativeKernels, ...] = ("avx512", "avx2", "neon", "scalar")
"""Those that store bf16 and multiply in fp32: their instruction set multiplies no bf16."""
DEVICES = ("cuda", "mps", "xpu", "cpu")
"""Device types that can train, as torch names them; "auto" takes the first that is present."""
Kernels = Literal["torch", "inductor", "triton", "cluster", NativeKernels]
"""Code that computes a training step: torch's operators, the same fused by torch's compiler
(Inductor), the Triton kernels of mnist_cnn.kernels.triton, the CUDA kernels of
mnist_cnn.kernels.cluster, or compiled code for CPUs."""
WHOLE_STEP_KERNELS: tuple[Kernels, ...] = ("triton", "cluster")
"""Those that compute whole steps on a GPU, and so train by mnist_cnn.engine.graph alone."""

TRAIN_IMAGES = 60_000
VALIDATION_IMAGES = 10_000


@dataclass(frozen=True, slots=True)
class Recipe:
    """One way to train the network; two runs with equal recipes solve the same problem.

    Raises:
        UsageError: from the constructor, for values with which no training is possible.
    """

    name: str
    """Name of the recipe on the command line."""
    epochs: int
    """Number of passes over the training images, or over the selected ones. The schedule ends with
    the last step of the last epoch."""
    batch_size: int
    """Number of images in an optimizer step, over *all* processes (the global batch)."""
    norm_batch_size: int
    """Number of images over which batch norm takes its statistics in training. A process splits its
    share of a batch into groups of this size ("ghost" batches, Hoffer et al. 2017), so that the
    number of processes does not change what is trained. 0: the whole batch of all processes, as it
    is for any size that is not smaller than the batch."""
    whole_epochs: int
    """Number of first epochs that take all images; later epochs take selected ones."""
    selected_share: float
    """Share of the training images that each later epoch takes; 1: all."""
    hardest_share: float
    """Share of the selected images that are chosen for the largest last loss; images not yet
    trained on come first. The rest is drawn at random from the remaining images."""
    optimizer: OptimizerName
    """Update rule: "adam" (Kingma & Ba 2015) or "sgd" with Nesterov momentum."""
    peak_learning_rate: float
    """Highest learning rate of the one-cycle schedule."""
    weight_decay: float
    """Factor of the L2 penalty, added to the gradient of every parameter, as in torch.optim."""
    warmup_fraction: float
    """Share of the steps in which the learning rate rises to its peak (OneCycleLR's pct_start)."""
    initial_divisor: float
    """Ratio of the peak to the initial learning rate (div_factor)."""
    final_divisor: float
    """Ratio of the initial to the last learning rate (final_div_factor)."""
    anneal: Literal["cos", "linear"]
    """Shape of the rise and of the fall; the schedule is stepped once per batch."""
    momentum: float
    """SGD's Nesterov momentum, or Adam's first beta where `cycle_momentum` is false."""
    cycle_momentum: bool
    """Whether the schedule also moves momentum between 0.95 and 0.85, as torch's default does."""
    rotation_degrees: float
    """Largest rotation of an image, the first distortion; uniform in plus or minus this."""
    translate_fraction: float
    """Largest shift along each axis, as a share of the side; whole pixels, after the rotation."""
    scale_deviation: float
    """Largest deviation of the scale factor from 1; uniform, applied with the shift."""
    shear_degrees: float
    """Largest angle of the shear along x; uniform in plus or minus this, applied with the shift."""
    brightness: float
    """Largest deviation of the brightness factor from 1; uniform, after the geometric steps."""
    contrast: float
    """Largest deviation of the contrast factor from 1; uniform. For each image it is drawn whether
    brightness or contrast changes first."""
    interpolation: Interpolation
    """Resampling: "nearest" once per geometric step, or "bilinear" once for both together."""
    pipeline: Pipeline
    """"loader": torchvision transforms in a DataLoader; "resident": all images on the device."""
    pixel_mean: float
    """Subtracted from pixels scaled to 0..1."""
    pixel_deviation: float
    """Divisor of that difference."""
    dropout: float
    """Probability that an activation after one of the four 3x3 blocks is set to zero."""
    label_smoothing: float
    """Share of a label's mass that the training loss spreads over all ten classes."""
    average_decay: float
    """Decay of the moving average of the weights, which is evaluated instead of them; 0: none."""
    average_interval: int
    """Number of steps between two updates of that average."""
    statistics_images: int
    """Number of undistorted training images from which batch norm's running statistics are computed
    again before an evaluation, which uses them; 0: it uses those of the training steps."""
    precision: RecipePrecision
    """"fp32", or "auto": bfloat16 autocast where the hardware multiplies it faster, else fp32."""
    memory_format: MemoryFormat
    """Layout of activations; a device on which it is slow or wrong uses contiguous."""
    evaluate_from_epoch: int
    """First epoch after which the network is evaluated, as it is after each later one."""
    evaluation_split: EvaluationSplit
    """"test": train on 60,000, evaluate on the test set. "validation": train on the first 50,000
    training images and evaluate on the last 10,000 of them (for tuning; never a result)."""

    def __post_init__(self) -> None:
        """Refuse values with which no training is possible."""
        if self.epochs < 1:
            raise UsageError(f"epochs must be at least 1, not {self.epochs}")
        if self.batch_size < 1:
            raise UsageError(f"batch size must be at least 1, not {self.batch_size}")
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
        if self.statistics_images < 0:
            raise UsageError(f"statistics images must be 0 or more, not {self.statistics_images}")

    @property
    def train_images(self) -> int:
        """Training images of this recipe's split."""
        held_out = VALIDATION_IMAGES if self.evaluation_split == "validation" else 0
        return TRAIN_IMAGES - held_out

    @property
    def has_norm_groups(self) -> bool:
        """Whether batch norm takes groups of a batch, rather than the whole batch together."""
        return 0 < self.norm_batch_size < self.batch_size

    def evaluates_after(self, epoch: int) -> bool:
        """Whether the network is evaluated after that epoch."""
        return epoch >= self.evaluate_from_epoch

    def with_epochs(self, epochs: int) -> Recipe:
        """The same recipe with its schedule stretched over `epochs` epochs."""
        return replace(
            self, epochs=epochs, evaluate_from_epoch=max(1, min(self.evaluate_from_epoch, epochs))
        )

    def with_batch_size(self, batch_size: int) -> Recipe:
        """The same recipe with `batch_size` images in a step.

        The peak learning rate changes with it: in proportion for SGD (Goyal et al. 2017), with the
        square root of the ratio for Adam (Malladi et al. 2022). Nothing else changes.

        Raises:
            UsageError: below 1.
        """
        if batch_size < 1:
            raise UsageError(f"batch size must be at least 1, not {batch_size}")
        ratio = batch_size / self.batch_size
        factor = ratio if self.optimizer == "sgd" else math.sqrt(ratio)
        return replace(
            self, batch_size=batch_size, peak_learning_rate=self.peak_learning_rate * factor
        )

    def values(self) -> dict[str, Any]:
        """Every field and its value, as stored in a record."""
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
    statistics_images=0,
    precision="fp32",
    memory_format="contiguous",
    evaluate_from_epoch=1,
    evaluation_split="test",
)
"""Recipe of the closed division: that of the original specification, schedule per batch."""

FAST = replace(
    REFERENCE,
    name="fast",
    epochs=27,
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
    statistics_images=4096,
    precision="auto",
    memory_format="channels_last",
    evaluate_from_epoch=27,
)
"""Recipe of the open division: 27 epochs of a tenth of the images each, in all as many images as
2.7 whole epochs. It takes images not yet trained on first, then the hardest and some random others.
It averages the weights, allows bf16, and takes batch norm's statistics from undistorted images."""

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
"""`fast` for GPUs: larger batches, and batch norm over whole batches. In all it takes as many
images as 2.7 whole epochs."""

RECIPES: dict[str, Recipe] = {recipe.name: recipe for recipe in (FAST, FAST_GPU, REFERENCE)}
DEFAULT_RECIPE = FAST.name

FREE_IN_CLOSED = ("pipeline", "memory_format")
"""Fields that may vary in the closed division. They change the trained weights, but not the method:
the pipelines draw other numbers from one distribution, and a layout changes the order of sums."""


def recipe_named(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        UsageError: there is none; the message lists all names and the nearest one.
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
    """The recipe with other epochs, pipeline or batch size; None leaves a value as it is.

    Raises:
        UsageError: the pipeline is unknown, or the epochs or the batch size are below 1.
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
    """Return "closed" if only `FREE_IN_CLOSED` differ from the reference, else "open"."""
    free = {field: getattr(REFERENCE, field) for field in FREE_IN_CLOSED}
    return "closed" if replace(recipe, **free) == REFERENCE else "open"
