"""The kinds of pictures that scripts/pictures.py makes of MNIST's digits.

Real digits: on a larger sheet, turned, noisy, faint; or with something that makes an answer
impossible: several digits, frames, lines, a digit cut off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

Ink = npt.NDArray[np.float64]
"""Ink of each pixel, 0 to 1, (height, width)."""
Random = np.random.Generator
Digits = Callable[[], Ink]
"""Draws a digit at random, as MNIST has it: 28 x 28."""


def cropped(digit: Ink) -> Ink:
    """A digit without its margin."""
    rows, columns = np.nonzero(digit > 0.1)
    return digit[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]


def resized(ink: Ink, factor: float) -> Ink:
    """Enlarged or made smaller."""
    height, width = ink.shape
    size = (max(1, round(width * factor)), max(1, round(height * factor)))
    picture = Image.fromarray((255 * ink).astype(np.uint8))
    return np.asarray(picture.resize(size, Image.Resampling.BICUBIC)) / 255


def turned(ink: Ink, degrees: float) -> Ink:
    """Turned anticlockwise, with room for its corners."""
    picture = Image.fromarray((255 * ink).astype(np.uint8))
    return np.asarray(picture.rotate(degrees, Image.Resampling.BICUBIC, expand=True)) / 255


def sheet_with(random: Random, ink: Ink, margin: float = 0.25) -> tuple[Ink, tuple[int, int]]:
    """A digit at a random place of a sheet, and the place of its upper left corner.

    Args:
        random: draws size and place.
        ink: the digit, without a margin.
        margin: smallest margin on each side, as a share of the digit's longer side.
    """
    height, width = ink.shape
    least = round(margin * max(height, width))
    room = [int(random.integers(0, 2 * max(height, width))) for _ in range(2)]
    sheet = np.zeros((height + 2 * least + room[0], width + 2 * least + room[1]))
    top, left = (least + int(random.integers(0, extra + 1)) for extra in room)
    sheet[top : top + height, left : left + width] = ink
    return sheet, (top, left)


def enlarged(random: Random, digit: Ink) -> Ink:
    """A digit without margin, 60 to 200 pixels high."""
    ink = cropped(digit)
    return resized(ink, random.uniform(60, 200) / max(ink.shape))


def shot(
    random: Random, ink: Ink, contrast: float = 0.8, noise: float = 0.01, gradient: float = 0.1
) -> Image.Image:
    """The picture of a sheet: dark or light ink, noise, light that falls from one side."""
    height, width = ink.shape
    angle = random.uniform(0, 2 * np.pi)
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = gradient * (np.cos(angle) * x + np.sin(angle) * y) / 2
    if random.random() < 0.5:
        brightness = 0.92 - gradient / 2 + light - contrast * ink
    else:
        brightness = 0.08 + gradient / 2 + light + contrast * ink
    brightness = brightness + random.normal(0, noise, ink.shape)
    return Image.fromarray((255 * brightness.clip(0, 1)).round().astype(np.uint8))


def plain(random: Random, digits: Digits) -> Image.Image:
    """A scan: a digit on a larger sheet."""
    return shot(random, sheet_with(random, enlarged(random, digits()))[0])


def rotated(random: Random, digits: Digits) -> Image.Image:
    """Turned by up to 20 degrees."""
    ink = cropped(turned(resized(digits(), 5), random.uniform(-20, 20)))
    return shot(random, sheet_with(random, ink)[0])


def noisy(random: Random, digits: Digits) -> Image.Image:
    """As by a camera in the dark: noise of 3 to 10 % of black against white."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    return shot(random, ink, contrast=0.7, noise=random.uniform(0.03, 0.1))


def faint(random: Random, digits: Digits) -> Image.Image:
    """A pencil: 20 to 40 % of black against white."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    return shot(random, ink, contrast=random.uniform(0.2, 0.4))


def lit(random: Random, digits: Digits) -> Image.Image:
    """Light that falls from one side."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    return shot(random, ink, contrast=0.4, gradient=random.uniform(0.2, 0.45))


def blurred(random: Random, digits: Digits) -> Image.Image:
    """Out of focus."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    radius = random.uniform(0.01, 0.03) * max(ink.shape)
    return shot(random, ink).filter(ImageFilter.GaussianBlur(radius))


def small(random: Random, digits: Digits) -> Image.Image:
    """14 to 28 pixels high."""
    ink = cropped(digits())
    ink = resized(ink, random.uniform(14, 28) / max(ink.shape))
    return shot(random, sheet_with(random, ink)[0])


def sheared(random: Random, digits: Digits) -> Image.Image:
    """Slanted, as in another hand, by up to 0.3."""
    picture = Image.fromarray((255 * resized(np.pad(digits(), 8), 5)).astype(np.uint8))
    slant = random.uniform(-0.3, 0.3)
    data = (1, slant, -slant * picture.height / 2, 0, 1, 0)
    slanted = picture.transform(
        picture.size, Image.Transform.AFFINE, data, Image.Resampling.BICUBIC
    )
    return shot(random, sheet_with(random, cropped(np.asarray(slanted) / 255))[0])


def tight(random: Random, digits: Digits) -> Image.Image:
    """Cropped to the digit, without any margin."""
    return shot(random, enlarged(random, digits()), noise=0.0, gradient=0.0)


def side_by_side(random: Random, digits: Digits) -> Image.Image:
    """Two digits beside each other, 20 to 60 % of their height apart."""
    return shot(random, sheet_with(random, _row(random, [digits(), digits()]))[0])


def three(random: Random, digits: Digits) -> Image.Image:
    """Three digits beside each other."""
    return shot(random, sheet_with(random, _row(random, [digits() for _ in range(3)]))[0])


def stacked(random: Random, digits: Digits) -> Image.Image:
    """Two digits, one above the other."""
    both = _row(random, [np.rot90(digits()), np.rot90(digits())])
    return shot(random, sheet_with(random, np.rot90(both, -1))[0])


def touching(random: Random, digits: Digits) -> Image.Image:
    """Two digits that touch."""
    first, second = (resized(cropped(digits()), 5) for _ in range(2))
    row = _row(random, [first, second], gaps=(-0.1, -0.02), factor=1)
    return shot(random, sheet_with(random, row)[0])


def _row(
    random: Random,
    digits: Sequence[Ink],
    gaps: tuple[float, float] = (0.2, 0.6),
    factor: float = 5,
) -> Ink:
    """Digits in a row; gaps are shares of the height."""
    inks = [resized(cropped(digit), factor) for digit in digits]
    height = max(ink.shape[0] for ink in inks)
    width = sum(ink.shape[1] for ink in inks) + len(inks) * height
    sheet, left = np.zeros((height, width)), 0
    for ink in inks:
        top = int(random.integers(0, height - ink.shape[0] + 1))
        place = np.s_[top : top + ink.shape[0], left : left + ink.shape[1]]
        sheet[place] = np.maximum(sheet[place], ink)
        left = max(0, left + ink.shape[1] + round(random.uniform(*gaps) * height))
    return cropped(sheet)


def framed(random: Random, digits: Digits) -> Image.Image:
    """A box drawn around the digit."""
    ink, _ = sheet_with(random, enlarged(random, digits()), margin=0.4)
    side = max(ink.shape) // 3
    pen = max(1, round(side * random.uniform(0.02, 0.08)))
    rows, columns = (np.flatnonzero(ink.max(axis=axis) > 0.1) for axis in (1, 0))
    space = round(0.1 * side) + pen
    outer = np.s_[
        rows[0] - space : rows[-1] + 1 + space, columns[0] - space : columns[-1] + 1 + space
    ]
    frame = np.ones_like(ink[outer])
    frame[pen:-pen, pen:-pen] = 0
    ink[outer] = np.maximum(ink[outer], frame)
    return shot(random, ink)


def bordered(random: Random, digits: Digits) -> Image.Image:
    """A frame at the border of the picture, as of a box on a form."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    pen = max(1, round(max(ink.shape) * random.uniform(0.01, 0.04)))
    framed_ink = np.ones_like(ink)
    framed_ink[pen:-pen, pen:-pen] = ink[pen:-pen, pen:-pen]
    return shot(random, framed_ink)


def ruled(random: Random, digits: Digits) -> Image.Image:
    """Paper with lines, slightly turned."""
    return shot(random, _on_lines(random, digits, both=False))


def squared(random: Random, digits: Digits) -> Image.Image:
    """Paper with squares, slightly turned."""
    return shot(random, _on_lines(random, digits, both=True))


def _on_lines(random: Random, digits: Digits, *, both: bool) -> Ink:
    ink = sheet_with(random, enlarged(random, digits()))[0]
    y, x = np.mgrid[: ink.shape[0], : ink.shape[1]]
    angle = np.deg2rad(random.uniform(-3, 3))
    digit_height = np.count_nonzero(ink.max(axis=1) > 0.1)
    spacing = random.uniform(0.3, 1.0) * digit_height
    pen, dark = max(1.0, 0.03 * digit_height), random.uniform(0.3, 0.8)
    lines = (y * np.cos(angle) + x * np.sin(angle)) % spacing < pen
    if both:
        lines |= (x * np.cos(angle) - y * np.sin(angle)) % spacing < pen
    on_lines: Ink = np.maximum(ink, dark * lines)
    return on_lines


def cut_off(random: Random, digits: Digits) -> Image.Image:
    """A digit of which 15 to 50 % lie beyond one border of the picture."""
    ink, (top, _) = sheet_with(random, enlarged(random, digits()))
    height = np.count_nonzero(ink.max(axis=1) > 0.1)
    rest = ink[top + round(height * random.uniform(0.15, 0.5)) :]
    return shot(random, np.rot90(rest, _turn(random)))


def _turn(random: Random) -> int:
    return int(random.integers(0, 4))


def desk(random: Random, digits: Digits) -> Image.Image:
    """The edge of the paper, and a dark desk beside it."""
    ink = np.rot90(sheet_with(random, enlarged(random, digits()), margin=0.5)[0], _turn(random))
    rows = np.flatnonzero(ink.max(axis=1) > 0.1)
    ink = ink.copy()
    ink[: max(2, round(rows[0] * random.uniform(0.2, 0.6)))] = random.uniform(0.4, 1.0)
    return shot(random, np.rot90(ink, _turn(random)), gradient=0.02)


def too_faint(random: Random, digits: Digits) -> Image.Image:
    """Ink that is hardly darker than the noise of the paper."""
    ink = sheet_with(random, enlarged(random, digits()))[0]
    noise = random.uniform(0.02, 0.06)
    return shot(random, ink, contrast=noise * random.uniform(0.5, 2.0), noise=noise)


def nothing(random: Random, _: Digits) -> Image.Image:
    """Paper, with light from one side."""
    return shot(random, np.zeros((200, 260)), noise=random.uniform(0.0, 0.05), gradient=0.3)


def tiny(random: Random, digits: Digits) -> Image.Image:
    """4 to 8 pixels high."""
    ink = cropped(digits())
    ink = resized(ink, random.uniform(4, 8) / max(ink.shape))
    return shot(random, sheet_with(random, ink, margin=3)[0])


Maker = Callable[[Random, Digits], Image.Image]
GOOD: dict[str, Maker] = {
    "plain": plain,
    "turned": rotated,
    "slanted": sheared,
    "noisy": noisy,
    "faint": faint,
    "lit from one side": lit,
    "blurred": blurred,
    "small": small,
    "no margin": tight,
}
"""Kinds of pictures that show one whole digit."""
BAD: dict[str, Maker] = {
    "two digits side by side": side_by_side,
    "three digits": three,
    "two digits, one above the other": stacked,
    "two digits that touch": touching,
    "a box around the digit": framed,
    "a frame at the border": bordered,
    "ruled paper": ruled,
    "squared paper": squared,
    "a digit cut off": cut_off,
    "the edge of the paper": desk,
    "ink as faint as the noise": too_faint,
    "nothing": nothing,
    "4 to 8 pixels": tiny,
}
"""Kinds of pictures that no answer is right for, or that show too little of it."""
