"""An epoch's batches, by either input pipeline, and each rank's share of them.

The order is drawn for the *global* batch by a generator that depends on seed and epoch alone, and
every rank takes its share. So two processes together train on the same batches as one process, and
on the same batch-norm groups where the recipe has groups. Where it selects images by their losses,
this holds until the losses' rounding changes a choice. The resident pipeline draws the
distortions in the same way; the loader's transforms draw theirs image by image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mnist_cnn.augment import Distortions, augment, draw
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split, has_pinned_memory
from mnist_cnn.kernels import native
from mnist_cnn.recipe import Recipe
from mnist_cnn.sampler import EpochDraw, HardExampleSampler, images_in_epoch, steps_in_epoch
from mnist_cnn.seeds import derived_seed


@dataclass(frozen=True, slots=True)
class Epoch:
    """The images of an epoch, in order, and their distortions."""

    order: Tensor
    """Indices of the images of all ranks, (M,), int64, on the device."""
    distortions: Distortions | None
    """Distortions of these M images, on the device; None where the pipeline draws its own."""


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a global batch."""

    images: Tensor
    """Distorted, normalised images, (N, 1, 28, 28), float32, on the device."""
    labels: Tensor
    """Their labels, (N,), int64, on the device."""
    weight: float
    """Ratio of this share's size to the mean size: the weight of its mean loss over the ranks."""


class Batches:
    """This rank's share of every batch, epoch by epoch.

    Args:
        data: the images and labels, on the CPU; or on the device, where the pipeline is resident.
        context: the recipe, the ranks, and the kernels, which distort resident images if they can.
        seed: the run's.
    """

    def __init__(self, data: Split, context: TrainingContext, seed: int) -> None:
        recipe = self._recipe = context.recipe
        self._accelerator = context.accelerator
        self._seed = seed
        self._count = len(data.train_images)
        self._sampler = HardExampleSampler(recipe, self._count, context.accelerator)
        self._drawn: dict[int, tuple[EpochDraw, Distortions | None]] = {}
        self._kernels = context.kernels
        self._native = context.kernels in native.KINDS and native.augments(recipe)
        self._data = data

    def load(self) -> None:
        """Move the images to where `batches` reads them."""
        if self._recipe.pipeline == "resident":
            self._images = self._data.train_images.to(self._accelerator.device)
            self._labels = self._data.train_labels.to(self._accelerator.device)
        else:
            self._dataset = _TransformedImages(self._data, self._recipe)

    def images(self, epoch: int) -> int:
        """Number of images of an epoch, counted from 1, over all ranks."""
        return images_in_epoch(self._recipe, self._count, epoch)

    def steps(self, epoch: int) -> int:
        """Number of batches of an epoch; the last one may be smaller."""
        return steps_in_epoch(self._recipe, self._count, epoch)

    def draw(self, epoch: int) -> None:
        """Draw an epoch's order and distortions on the CPU, while the device trains another epoch.

        The generator depends on seed and epoch alone.
        """
        generator = torch.Generator().manual_seed(derived_seed(self._seed, "epoch", epoch))
        epoch_draw = self._sampler.draw(epoch, generator)
        distortions = None
        if self._recipe.pipeline == "resident":
            distortions = draw(self.images(epoch), self._recipe, generator)
        self._drawn[epoch] = epoch_draw, distortions

    def epoch(self, epoch: int) -> Epoch:
        """Start an epoch, counted from 1; `end_epoch` must end it before the next one starts."""
        if epoch not in self._drawn:
            self.draw(epoch)
        epoch_draw, distortions = self._drawn.pop(epoch)
        return Epoch(
            self._sampler.order(epoch_draw),
            None if distortions is None else distortions.to(self._accelerator.device),
        )

    def batches(self, epoch: Epoch) -> Iterator[Batch]:
        """Yield this rank's share of each batch of an epoch; call `load` first."""
        if epoch.distortions is None:
            return self._loader(epoch.order)
        return self._resident(epoch.order, epoch.distortions)

    def end_epoch(self, epoch: Epoch, losses: Tensor) -> None:
        """Store the loss of each of this rank's images, (m,), for the selection of later epochs."""
        ranks = self._accelerator.num_processes
        indices = epoch.order
        if ranks > 1:
            shares = [epoch.order[share] for share, _ in self._shares(len(epoch.order))]
            indices = torch.cat(shares)
        self._sampler.end_epoch(epoch.order, indices, losses)

    @property
    def losses(self) -> Tensor:
        """Last loss of each training image, (N,): see `HardExampleSampler`."""
        return self._sampler.losses

    def _shares(self, count: int) -> Iterator[tuple[slice | Tensor, float]]:
        """Yield this rank's positions in the epoch's order for each batch, and their weight."""
        ranks = self._accelerator.num_processes
        for start in range(0, count, self._recipe.batch_size):
            size = min(self._recipe.batch_size, count - start)
            if ranks == 1:
                yield slice(start, start + size), 1.0
            else:
                positions = self._share(size, ranks)
                yield positions + start, len(positions) * ranks / size

    def _share(self, size: int, ranks: int) -> Tensor:
        """This rank's positions in a batch of `size` images, from 0.

        The ranks take whole batch-norm groups in turn, so that the groups are the same for any
        number of ranks. They take single images in turn where there are fewer groups than ranks.
        """
        group = self._recipe.norm_batch_size
        if group == 0 or math.ceil(size / group) < ranks:
            group = 1
        positions = torch.arange(size, device=self._accelerator.device)
        return positions[positions // group % ranks == self._accelerator.process_index]

    def _resident(self, order: Tensor, distortions: Distortions) -> Iterator[Batch]:
        labels = self._labels[order]
        for share, weight in self._shares(len(order)):
            chosen = order[share]
            if self._native:
                images = native.augment(
                    self._images, chosen, distortions[share], self._recipe, self._kernels
                )
            else:
                images = augment(self._images[chosen], distortions[share], self._recipe)
            yield Batch(images, labels[share], weight)

    def _loader(self, order: Tensor) -> Iterator[Batch]:
        # Not prepared by Accelerate: its sharding pads the last batch, so some images would count
        # twice. The batch sampler already gives each rank its own share.
        device = self._accelerator.device
        loader = DataLoader(
            self._dataset,
            batch_sampler=[order[share].tolist() for share, _ in self._shares(len(order))],
            pin_memory=has_pinned_memory(device),
        )
        for (images, labels), (_, weight) in zip(loader, self._shares(len(order)), strict=True):
            yield Batch(
                images.to(device, non_blocking=True),
                labels.to(device, non_blocking=True),
                weight,
            )


class _TransformedImages(Dataset[tuple[Tensor, int]]):
    """Training images, distorted by torchvision's transforms, one PIL image at a time."""

    def __init__(self, data: Split, recipe: Recipe) -> None:
        self._images = data.train_images.numpy()
        self._labels = data.train_labels.tolist()
        self._transform = seed_transform(recipe)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def seed_transform(recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """The original specification's transforms: a PIL image to (1, 28, 28), normalised float32."""
    # Lazy: importing torchvision takes longer than an epoch on a GPU.
    from torchvision import transforms

    interpolation = transforms.InterpolationMode(recipe.interpolation)
    deviation = recipe.scale_deviation
    reach = recipe.translate_fraction
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(
        [
            transforms.RandomRotation(recipe.rotation_degrees, interpolation),
            transforms.RandomAffine(
                degrees=0,
                translate=(reach, reach),
                scale=(1 - deviation, 1 + deviation),
                shear=recipe.shear_degrees,
                interpolation=interpolation,
            ),
            transforms.ColorJitter(recipe.brightness, recipe.contrast),
            transforms.ToTensor(),
            transforms.Normalize((recipe.pixel_mean,), (recipe.pixel_deviation,)),
        ]
    )
    return composed
