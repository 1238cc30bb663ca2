"""The recipe's random distortions, for a whole batch at once on the device.

The distribution is that of torchvision's RandomRotation, RandomAffine and ColorJitter, one after
the other, as in the original specification. One generator on the CPU draws each image's parameters
once per epoch for all ranks: with one seed, the n-th image of an epoch is distorted in the same way
on every device and for every number of processes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mnist_cnn.recipe import Recipe

SIDE = 28
"""Height and width of an image, pixels."""
COLUMNS = 10
"""Number of parameters of an image's distortion."""


@dataclass(frozen=True, slots=True)
class Distortions:
    """Distortions of N images: ten parameters for each, in one tensor (N, 10), float32.

    Columns: cosine and sine of the rotation; the 2x2 matrix of the affine step's inverse, row by
    row; its translation along x and y in pixels; brightness factor; contrast factor, negative
    where contrast comes before brightness.
    """

    table: Tensor

    def __getitem__(self, rows: slice | Tensor) -> Distortions:
        return Distortions(self.table[rows])

    def to(self, device: torch.device) -> Distortions:
        """The same distortions on another device."""
        return Distortions(self.table.to(device))


def _uniform(count: int, deviation: float, generator: torch.Generator) -> Tensor:
    return torch.empty(count).uniform_(-deviation, deviation, generator=generator)


def draw(count: int, recipe: Recipe, generator: torch.Generator) -> Distortions:
    """Random distortions for `count` images, on the CPU.

    Source: torchvision's RandomRotation, RandomAffine and ColorJitter `get_params`, each
    parameter from the same distribution (translations are whole pixels, rounded half to even).
    """
    angle = _uniform(count, math.radians(recipe.rotation_degrees), generator)
    reach = recipe.translate_fraction * SIDE
    move_x = _uniform(count, reach, generator).round()
    move_y = _uniform(count, reach, generator).round()
    scale = 1 + _uniform(count, recipe.scale_deviation, generator)
    shear = torch.tan(_uniform(count, math.radians(recipe.shear_degrees), generator))
    brightness = 1 + _uniform(count, recipe.brightness, generator)
    contrast = 1 + _uniform(count, recipe.contrast, generator)
    contrast_first = torch.rand(count, generator=generator) < 0.5
    return DistortionParameters(
        angle=angle,
        move_x=move_x,
        move_y=move_y,
        scale=scale,
        shear=shear,
        brightness=brightness,
        contrast=contrast,
        contrast_first=contrast_first,
    ).table()


@dataclass(frozen=True, slots=True, kw_only=True)
class DistortionParameters:
    """The parameters of N distortions, each of shape (N,)."""

    angle: Tensor
    """Rotation in radians, counter-clockwise."""
    move_x: Tensor
    """Shift to the right, in pixels."""
    move_y: Tensor
    """Shift down, in pixels."""
    scale: Tensor
    """Scale factor."""
    shear: Tensor
    """Tangent of the shear angle along x."""
    brightness: Tensor
    """Brightness factor."""
    contrast: Tensor
    """Contrast factor."""
    contrast_first: Tensor
    """Whether contrast changes before brightness, bool."""

    def table(self) -> Distortions:
        """The same as the columns of one table."""
        # torchvision's _get_inverse_affine_matrix with angle 0 and no shear along y.
        columns = (
            torch.cos(self.angle),
            torch.sin(self.angle),
            1 / self.scale,
            self.shear / self.scale,
            torch.zeros_like(self.scale),
            1 / self.scale,
            self.move_x,
            self.move_y,
            self.brightness,
            torch.where(self.contrast_first, -self.contrast, self.contrast),
        )
        return Distortions(torch.stack(columns, dim=1))


def augment(images: Tensor, distortions: Distortions, recipe: Recipe) -> Tensor:
    """Distorted, normalised images.

    Args:
        images: (N, 28, 28), uint8.
        distortions: one row for each image, on the images' device.
        recipe: interpolation, brightness and contrast, normalisation.

    Returns:
        (N, 1, 28, 28), float32.
    """
    columns = distortions.table
    warp = _warp_nearest if recipe.interpolation == "nearest" else _warp_bilinear
    x = warp(images, columns)
    if recipe.brightness > 0 or recipe.contrast > 0:
        x = _jitter(x, columns)
    return normalise(x, recipe).unsqueeze(1)


def normalise(images: Tensor, recipe: Recipe) -> Tensor:
    """Pixels 0..255 of any shape to (pixel / 255 - mean) / deviation, float32."""
    scale = 1 / (255 * recipe.pixel_deviation)
    return images.float().mul_(scale).sub_(recipe.pixel_mean / recipe.pixel_deviation)


def _warp_nearest(images: Tensor, columns: Tensor) -> Tensor:
    """Rotate, then affine, each by nearest neighbour: (N, 28, 28) uint8 -> float32 in 0..255.

    Both steps only copy pixels, so one gather replaces torchvision's two: the second step's source
    pixel is the first step's output pixel.
    """
    n = images.shape[0]
    cos, sin, a, b, c, d, move_x, move_y = columns[:, :8, None, None].unbind(1)
    centre = SIDE / 2
    pixel = torch.arange(SIDE, device=images.device, dtype=torch.float32) + 0.5 - centre
    x = pixel[None, None, :] - move_x
    y = pixel[None, :, None] - move_y
    middle_x = torch.floor(a * x + b * y + centre)
    middle_y = torch.floor(c * x + d * y + centre)
    x = middle_x + (0.5 - centre)
    y = middle_y + (0.5 - centre)
    source_x = torch.floor(cos * x - sin * y + centre)
    source_y = torch.floor(sin * x + cos * y + centre)
    inside = torch.ones((), dtype=torch.bool, device=images.device)
    for coordinate in (middle_x, middle_y, source_x, source_y):
        inside = inside & (coordinate >= 0) & (coordinate < SIDE)
    flat = (source_y * SIDE + source_x).clamp_(0, SIDE * SIDE - 1).long()
    pixels = images.reshape(n, -1).gather(1, flat.view(n, -1)).view(n, SIDE, SIDE)
    return pixels.float().mul_(inside)


def _warp_bilinear(images: Tensor, columns: Tensor) -> Tensor:
    """Both steps as one bilinear resampling: (N, 28, 28) uint8 -> float32 in 0..255."""
    cos, sin, a, b, c, d, move_x, move_y = columns[:, :8].unbind(1)
    # Source = rotation @ (affine @ (destination - move)); grid_sample's unit is half a side.
    xx, xy = cos * a - sin * c, cos * b - sin * d
    yx, yy = sin * a + cos * c, sin * b + cos * d
    x0 = -(xx * move_x + xy * move_y) * (2 / SIDE)
    y0 = -(yx * move_x + yy * move_y) * (2 / SIDE)
    theta = torch.stack((xx, xy, x0, yx, yy, y0), dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, [images.shape[0], 1, SIDE, SIDE], align_corners=False)
    return F.grid_sample(images.unsqueeze(1).float(), grid, align_corners=False).squeeze(1)


def _jitter(x: Tensor, columns: Tensor) -> Tensor:
    """Change brightness and contrast, in each image's order: (N, 28, 28) float32 in 0..255.

    Each step ends in whole grey levels, as in PIL.
    """
    brightness, contrast = columns[:, 8:10, None, None].unbind(1)
    contrast_first = contrast < 0
    contrast = contrast.abs()
    unchanged = torch.ones_like(contrast)
    # A contrast factor of 1 changes nothing, so two blends cover both orders.
    x = _blend_with_mean(x, torch.where(contrast_first, contrast, unchanged))
    x = (x * brightness).clamp_(0, 255).floor_()
    return _blend_with_mean(x, torch.where(contrast_first, unchanged, contrast))


def _blend_with_mean(x: Tensor, factor: Tensor) -> Tensor:
    mean = torch.floor(x.mean(dim=(1, 2), keepdim=True) + 0.5)
    return ((x - mean) * factor + mean).clamp_(0, 255).floor_()
