"""The batched distortions are torchvision's: same pixels given the same parameters."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings, strategies as st
from PIL import Image
from torch import Tensor
from torchvision.transforms import ColorJitter, InterpolationMode, RandomAffine, functional as F

from mnist_cnn.augment import DistortionParameters, augment, draw, normalise
from mnist_cnn.batches import seed_transform
from mnist_cnn.data.dataset import MnistData
from mnist_cnn.recipe import REFERENCE, Interpolation, Recipe

GREY_LEVELS = replace(REFERENCE, pixel_mean=0.0, pixel_deviation=1 / 255)
"""The reference recipe, normalised to grey levels 0..255, so that pixels compare as such."""


def by_torchvision(image: Tensor, row: dict[str, float], interpolation: Interpolation) -> Tensor:
    """One image through torchvision's own functions, (28, 28), 0..255."""
    mode = InterpolationMode(interpolation)
    picture = F.rotate(Image.fromarray(image.numpy()), math.degrees(row["angle"]), mode)
    picture = F.affine(
        picture,
        0,
        [int(row["move_x"]), int(row["move_y"])],
        row["scale"],
        [math.degrees(math.atan(row["shear"])), 0.0],
        mode,
    )
    if row["contrast_first"]:
        picture = F.adjust_brightness(
            F.adjust_contrast(picture, row["contrast"]), row["brightness"]
        )
    else:
        picture = F.adjust_contrast(
            F.adjust_brightness(picture, row["brightness"]), row["contrast"]
        )
    pixels: Tensor = F.pil_to_tensor(picture)[0].float()
    return pixels


def random_parameters(count: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)

    def uniform(reach: float) -> Tensor:
        return torch.empty(count).uniform_(-reach, reach, generator=generator)

    return {
        "angle": uniform(math.radians(7)),
        "move_x": uniform(2.8).round(),
        "move_y": uniform(2.8).round(),
        "scale": 1 + uniform(0.1),
        "shear": torch.tan(uniform(math.radians(5))),
        "brightness": 1 + uniform(0.2),
        "contrast": 1 + uniform(0.2),
        "contrast_first": torch.rand(count, generator=generator) < 0.5,
    }


def both(
    mnist: MnistData, count: int, seed: int, interpolation: Interpolation
) -> tuple[Tensor, Tensor]:
    images = mnist.train_images[:count]
    parameters = random_parameters(count, seed)
    recipe = replace(GREY_LEVELS, interpolation=interpolation)
    ours = augment(images, DistortionParameters(**parameters).table(), recipe)[:, 0]
    rows = [{name: column[i].item() for name, column in parameters.items()} for i in range(count)]
    theirs = [by_torchvision(i, row, interpolation) for i, row in zip(images, rows, strict=True)]
    return ours, torch.stack(theirs)


@pytest.mark.parametrize("seed", [0, 1])
def test_nearest_gives_torchvisions_pixels(mnist: MnistData, seed: int) -> None:
    ours, theirs = both(mnist, 300, seed, "nearest")
    # PIL's coordinates are fixed-point, to 1/65536 pixel: where a source lies on the border of
    # two pixels it may take the other one, and that shifts its image's mean by a fraction.
    different = ((ours - theirs).abs() > 1).float().mean().item()
    assert different < 5e-4


def test_bilinear_is_torchvisions_up_to_resampling_once_instead_of_twice(mnist: MnistData) -> None:
    ours, theirs = both(mnist, 300, 0, "bilinear")
    assert (ours - theirs).abs().mean().item() < 3  # of 255; nearest differs from it by over 7
    nearest, _ = both(mnist, 300, 0, "nearest")
    assert (nearest - theirs).abs().mean().item() > 5


def test_no_distortion_changes_nothing(mnist: MnistData) -> None:
    still = replace(
        GREY_LEVELS,
        rotation_degrees=0.0,
        translate_fraction=0.0,
        scale_deviation=0.0,
        shear_degrees=0.0,
        brightness=0.0,
        contrast=0.0,
    )
    images = mnist.train_images[:50]
    for interpolation in ("nearest", "bilinear"):
        recipe = replace(still, interpolation=interpolation)
        table = draw(50, recipe, torch.Generator().manual_seed(0))
        torch.testing.assert_close(
            augment(images, table, recipe)[:, 0], images.float(), atol=1e-3, rtol=0
        )


@pytest.mark.parametrize(
    ("column", "low", "high"),
    [
        ("angle", -math.radians(7), math.radians(7)),
        ("scale", 0.9, 1.1),
        ("shear_degrees", -5, 5),
        ("brightness", 0.8, 1.2),
        ("contrast", 0.8, 1.2),
    ],
)
def test_parameters_are_uniform(column: str, low: float, high: float) -> None:
    values = _drawn_columns()[column]
    assert values.min() >= low - 1e-6
    assert values.max() <= high + 1e-6
    fractions = ((values - low) / (high - low)).sort().values
    # Kolmogorov-Smirnov distance; 1.95 / sqrt(n) is passed by chance once in 1,000 draws.
    steps = torch.arange(1, len(values) + 1) / len(values)
    assert (fractions - steps).abs().max() < 1.95 / math.sqrt(len(values))


@pytest.mark.parametrize("column", ["move_x", "move_y"])
def test_moves_are_torchvisions_whole_pixels(column: str) -> None:
    values = _drawn_columns()[column]
    theirs = torch.tensor(
        [
            RandomAffine.get_params([0, 0], [0.1, 0.1], [0.9, 1.1], [-5, 5], [28, 28])[1][0]
            for _ in range(20_000)
        ]
    )
    for pixels in range(-3, 4):
        ours_share = (values == pixels).float().mean().item()
        their_share = (theirs == pixels).float().mean().item()
        assert abs(ours_share - their_share) < 0.02
    assert values.abs().max() <= 3


def test_half_of_the_images_change_contrast_first_as_in_torchvision() -> None:
    ours = (_drawn_columns()["order"] < 0).float().mean().item()
    orders = [ColorJitter.get_params([0.8, 1.2], [0.8, 1.2], None, None)[0] for _ in range(5000)]
    first = [next(int(i) for i in order if int(i) in (0, 1)) for order in orders]
    assert abs(ours - 0.5) < 0.02
    assert abs(sum(first) / len(first) - 0.5) < 0.03


@pytest.mark.slow
def test_the_two_pipelines_give_the_same_mean_image(mnist: MnistData) -> None:
    """End to end, random draws included: mean and deviation of every pixel over many draws."""
    torch.manual_seed(0)
    count = 4_000
    images = mnist.train_images[:count]
    transform = seed_transform(REFERENCE)
    loader = torch.stack([transform(Image.fromarray(i.numpy())) for i in images])
    table = draw(count, REFERENCE, torch.Generator().manual_seed(1))
    resident = augment(images, table, REFERENCE)
    # The standard error of a pixel's mean is at most 1.6 / sqrt(4000) = 0.025 normalised units;
    # the largest of 784 differences of two such means stays below 4.5 of their errors.
    error = (loader.var(0) / count + resident.var(0) / count).sqrt().clamp_min(1e-3)
    assert ((loader.mean(0) - resident.mean(0)) / error).abs().max() < 4.5
    assert loader.std().item() == pytest.approx(resident.std().item(), rel=0.01)


@given(count=st.integers(1, 40), seed=st.integers(0, 2**31), data=st.data())
@settings(max_examples=30, deadline=None)
def test_images_are_distorted_independently(count: int, seed: int, data: st.DataObject) -> None:
    """An image's result does not depend on which others share its batch."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 256, (count, 28, 28), dtype=torch.uint8, generator=generator)
    recipe: Recipe = replace(
        REFERENCE, interpolation=data.draw(st.sampled_from(["nearest", "bilinear"]))
    )
    table = draw(count, recipe, generator)
    which = data.draw(st.integers(0, count - 1))
    whole = augment(images, table, recipe)
    assert whole.shape == (count, 1, 28, 28)
    one = slice(which, which + 1)
    alone = augment(images[one], table[one], recipe)
    torch.testing.assert_close(whole[one], alone, atol=1e-2, rtol=0)


def test_normalise_is_totensor_and_normalize(mnist: MnistData) -> None:
    images = mnist.test_images[:100]
    expected = (images.float() / 255 - 0.1307) / 0.3081
    torch.testing.assert_close(normalise(images, REFERENCE), expected)


def _drawn_columns() -> dict[str, Tensor]:
    table = draw(20_000, REFERENCE, torch.Generator().manual_seed(3)).table
    return {
        "angle": torch.atan2(table[:, 1], table[:, 0]),
        "scale": 1 / table[:, 2],
        "shear_degrees": torch.rad2deg(torch.atan(table[:, 3] / table[:, 2])),
        "move_x": table[:, 6],
        "move_y": table[:, 7],
        "brightness": table[:, 8],
        "contrast": table[:, 9].abs(),
        "order": table[:, 9],
    }
