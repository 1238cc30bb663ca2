"""An epoch's batches, by either input pipeline, and each rank's share of them.

The order is drawn for the *global* batch by a generator that depends on seed and epoch alone, and
every rank takes its share: two processes see, together, the batches that one would. The resident
pipeline draws the distortions so too; the loader's transforms draw theirs as they go.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from accelerate import Accelerator
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mnist_cnn import native
from mnist_cnn.augment import Distortions, augment, draw
from mnist_cnn.data import Split
from mnist_cnn.recipe import Kernels, Recipe
from mnist_cnn.seeds import derived_seed
from mnist_cnn.selection import Selection, images_in_epoch


@dataclass(frozen=True, slots=True)
class Batch:
    """One rank's share of a global batch."""

    images: Tensor
    """(N, 1, 28, 28), float32, distorted and normalised, on the device."""
    labels: Tensor
    """(N,), int64, on the device."""
    indices: Tensor
    """(N,), int64, which training images these are, on the device."""
    weight: float
    """This share's size over the mean share's: what its mean loss counts in the ranks' average."""


class Batches:
    """This rank's share of every batch, epoch by epoch.

    Args:
        data: the images and labels, on the CPU.
        recipe: names the pipeline, the batch size and the distortions.
        accelerator: the device and the ranks.
        seed: the run's.
        kernels: what distorts the images of the resident pipeline, where it can.
    """

    def __init__(
        self,
        data: Split,
        recipe: Recipe,
        accelerator: Accelerator,
        seed: int,
        kernels: Kernels = "torch",
    ) -> None:
        self._recipe = recipe
        self._accelerator = accelerator
        self._seed = seed
        self._count = len(data.train_images)
        self._selection = Selection(recipe, self._count, accelerator)
        self._native = kernels != "torch" and native.augments(recipe)
        if recipe.pipeline == "resident":
            self._images = data.train_images.to(accelerator.device)
            self._labels = data.train_labels.to(accelerator.device)
        else:
            self._dataset = _TransformedImages(data, recipe)

    def images(self, epoch: int) -> int:
        """How many images an epoch, counted from 1, has over all ranks."""
        return images_in_epoch(self._recipe, self._count, epoch)

    def steps(self, epoch: int) -> int:
        """How many batches it has; the last may be smaller."""
        return math.ceil(self.images(epoch) / self._recipe.batch_size)

    def epoch(self, epoch: int) -> Iterator[Batch]:
        """The batches of an epoch, counted from 1. Each is to be noted before the next epoch."""
        generator = torch.Generator().manual_seed(derived_seed(self._seed, "epoch", epoch))
        order = self._selection.order(epoch, generator)
        if self._recipe.pipeline == "resident":
            yield from self._resident(order, draw(len(order), self._recipe, generator))
        else:
            yield from self._loader(order)
        self._selection.end_epoch(order)

    def note(self, batch: Batch, losses: Tensor) -> None:
        """Remember what each image of a batch cost, (N,), for the selection of later ones."""
        self._selection.note(batch.indices, losses)

    def _shares(self, count: int) -> Iterator[tuple[slice, float]]:
        """Each batch's positions in an epoch's order that are this rank's, and their weight."""
        ranks = self._accelerator.num_processes
        for start in range(0, count, self._recipe.batch_size):
            stop = min(start + self._recipe.batch_size, count)
            first = start + self._accelerator.process_index
            yield slice(first, stop, ranks), len(range(first, stop, ranks)) * ranks / (stop - start)

    def _resident(self, order: Tensor, distortions: Distortions) -> Iterator[Batch]:
        distortions = distortions.to(self._accelerator.device)
        order = order.to(self._accelerator.device)
        labels = self._labels[order]
        for share, weight in self._shares(len(order)):
            chosen = order[share]
            if self._native:
                images = native.augment(self._images, chosen, distortions[share], self._recipe)
            else:
                images = augment(self._images[chosen], distortions[share], self._recipe)
            yield Batch(images, labels[share], chosen, weight)

    def _loader(self, order: Tensor) -> Iterator[Batch]:
        # Not prepared by Accelerate: its sharding pads the last batch, and would count some images
        # twice. The batch sampler already gives each rank its own share.
        device = self._accelerator.device
        loader = DataLoader(
            self._dataset,
            batch_sampler=[order[share].tolist() for share, _ in self._shares(len(order))],
            pin_memory=device.type == "cuda",
        )
        for (images, labels), (share, weight) in zip(loader, self._shares(len(order)), strict=True):
            yield Batch(
                images.to(device, non_blocking=True),
                labels.to(device, non_blocking=True),
                order[share].to(device, non_blocking=True),
                weight,
            )


class _TransformedImages(Dataset[tuple[Tensor, int]]):
    """Training images through the seed's torchvision transforms, one PIL image at a time."""

    def __init__(self, data: Split, recipe: Recipe) -> None:
        self._images = data.train_images.numpy()
        self._labels = data.train_labels.tolist()
        self._transform = seed_transform(recipe)

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(Image.fromarray(self._images[index])), self._labels[index]


def seed_transform(recipe: Recipe) -> Callable[[Image.Image], Tensor]:
    """The seed text's torchvision transforms: a PIL image to (1, 28, 28), normalised float32."""
    # Here, because importing torchvision takes longer than an epoch does on a GPU.
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
