"""Whether a picture shows one whole digit and nothing else; if not, what it shows instead.

The network answers with one of ten digits whatever it is shown. What it cannot know must be seen
before: several digits, frames, lines of the paper, digits cut off by the border of the picture.
The thresholds were chosen on pictures made of MNIST's training images (`scripts/pictures.py`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Mask = npt.NDArray[np.bool_]
"""Which pixels belong to something, (height, width)."""

SMALLEST_SIDE = 10
"""Smallest longer side of a digit, in pixels."""
SECOND_SHARE = 0.25
"""Smallest longer side of a second digit, as a share of the first one's."""
SEPARATE_GAP = 0.12
"""Smallest gap between two digits, as a share of the larger one's longer side: strokes of one
digit that do not touch are closer."""
WIDEST = 1.5
"""Largest width of a digit, as a multiple of its height."""
FRAME_COVER = 0.75
"""Smallest share of each side of its box that the lines of a frame cover."""
FRAME_FILL = 0.6
"""Largest share of its box that a frame fills."""
LARGEST_COVER = 0.5
"""Largest share of the picture that ink covers."""
CROPPED_SPAN = 0.85
"""Smallest share of the picture's height and width that a digit without any margin takes."""
MOST_CONTACTS = 5
"""Most places at which a digit without any margin touches the borders: one on each side, and one
more (97 % of the training images)."""
MNIST_SHAPE = (28, 28)
"""Height and width of MNIST's own images: they are centred by mass, and some reach the border."""
MARGIN_REMEDY = "take in some background on every side"


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """One connected part of a picture's ink, and its box; the ends are exclusive."""

    mask: Mask
    """Its pixels."""
    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def of(cls, mask: Mask) -> Shape:
        """The shape of a mask that is not empty."""
        rows, columns = np.nonzero(mask)
        return cls(
            mask=mask,
            top=int(rows.min()),
            bottom=int(rows.max()) + 1,
            left=int(columns.min()),
            right=int(columns.max()) + 1,
        )

    @property
    def height(self) -> int:
        """Height of the box, in pixels."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Width of the box, in pixels."""
        return self.right - self.left

    @property
    def longer_side(self) -> int:
        """The larger of height and width, in pixels."""
        return max(self.height, self.width)

    @property
    def box_mask(self) -> Mask:
        """Its pixels within the box."""
        return self.mask[self.top : self.bottom, self.left : self.right]

    def borders(self) -> list[str]:
        """The borders of the picture that it touches."""
        height, width = self.mask.shape
        touched = {
            "top": self.top == 0,
            "bottom": self.bottom == height,
            "left": self.left == 0,
            "right": self.right == width,
        }
        return [name for name, is_touched in touched.items() if is_touched]

    def is_cropped_digit(self) -> bool:
        """Whether it may be a digit to which the picture was cropped, without any margin.

        Such a digit touches at least two borders, each at a place or two: its palest pixels are
        no ink, so that the others may be just beyond. Lines of the paper touch them more often.
        """
        height, width = self.mask.shape
        if len(self.borders()) < 2 or min(self.height / height, self.width / width) < CROPPED_SPAN:
            return False
        sides = (self.mask[0], self.mask[-1], self.mask[:, 0], self.mask[:, -1])
        contacts = sum(int((np.diff(side.astype(int), prepend=0) == 1).sum()) for side in sides)
        return contacts <= MOST_CONTACTS

    def is_frame(self) -> bool:
        """Whether it has lines along all four sides of its box, and is hollow."""
        band = max(1, round(0.08 * self.longer_side))
        inside = self.box_mask
        sides = (inside[:band], inside[-band:], inside[:, :band].T, inside[:, -band:].T)
        covers_all = all(side.any(axis=0).mean() >= FRAME_COVER for side in sides)
        return covers_all and bool(inside.mean() <= FRAME_FILL)

    def surrounds(self, other: Shape) -> bool:
        """Whether another shape's box is within this one's, with space around."""
        return (
            self.top < other.top
            and self.bottom > other.bottom
            and self.left < other.left
            and self.right > other.right
        )

    def gap_to(self, other: Shape) -> int:
        """Pixels between the two boxes, in the direction in which they are farther apart."""
        across = max(self.left, other.left) - min(self.right, other.right)
        down = max(self.top, other.top) - min(self.bottom, other.bottom)
        return max(across, down)


def find_obstacle(shapes: Sequence[Shape]) -> str | None:
    """What is against one whole digit in the ink, and how to take a better picture.

    Args:
        shapes: the connected parts of the ink that are no dirt, at least one.

    Returns:
        The rest of a sentence that begins with the picture's name; None where nothing is.
    """
    return (
        _find_background(shapes)
        or _find_frame(shapes)
        or _find_lines(shapes)
        or _find_border(shapes)
        or _find_others(shapes)
    )


def _find_frame(shapes: Sequence[Shape]) -> str | None:
    for shape in shapes:
        has_inside = any(shape.surrounds(other) and not _is_small(other, shape) for other in shapes)
        if shape.is_frame() or has_inside:
            return "shows a frame or a circle around the digit: crop the picture inside of it"
    return None


def _find_background(shapes: Sequence[Shape]) -> str | None:
    """Most of the picture differs from its border: the border is no background."""
    if _all_ink(shapes).mean() <= LARGEST_COVER or _is_cropped(shapes):
        return None
    return (
        "shows a frame at its border, or hardly any background: crop the picture inside of the "
        f"frame, or {MARGIN_REMEDY}"
    )


def _find_lines(shapes: Sequence[Shape]) -> str | None:
    if _is_cropped(shapes):
        return None
    for shape in shapes:
        borders = shape.borders()
        for pair in (["left", "right"], ["top", "bottom"]):
            if set(pair) <= set(borders):
                return (
                    f"shows a line from {pair[0]} to {pair[1]}, as on ruled paper or at the edge "
                    "of a sheet: use plain paper, or crop between the lines"
                )
    return None


def _find_border(shapes: Sequence[Shape]) -> str | None:
    if _is_cropped(shapes) or shapes[0].mask.shape == MNIST_SHAPE:
        return None
    for shape in shapes:
        where = " and ".join(shape.borders())
        if not where:
            continue
        if len(shapes) == 1:
            return f"shows a digit that is cut off at the {where}: {MARGIN_REMEDY}"
        return (
            f"shows something that reaches the {where} border, beside the digit: crop it away, "
            "but leave some background on every side"
        )
    return None


def _find_others(shapes: Sequence[Shape]) -> str | None:
    first = max(shapes, key=lambda shape: shape.longer_side)
    digits = [shape for shape in shapes if not _is_small(shape, first)]
    if any(
        one.gap_to(other) >= SEPARATE_GAP * first.longer_side
        for one, other in itertools.combinations(digits, 2)
    ):
        return f"shows {len(digits)} separate shapes: crop the picture to one digit"
    left, right = min(s.left for s in shapes), max(s.right for s in shapes)
    top, bottom = min(s.top for s in shapes), max(s.bottom for s in shapes)
    if right - left > WIDEST * (bottom - top):
        ratio = math.floor(10 * (right - left) / (bottom - top)) / 10
        return (
            f"shows something {ratio:g} times as wide as high, which no digit is: crop the picture "
            "to one upright digit"
        )
    side = max(right - left, bottom - top)
    if side < SMALLEST_SIDE:
        return (
            f"shows a digit of {side} pixels, too few to tell: crop the picture to the digit, or "
            "take it from closer"
        )
    return None


def _is_cropped(shapes: Sequence[Shape]) -> bool:
    return Shape.of(_all_ink(shapes)).is_cropped_digit()


def _all_ink(shapes: Sequence[Shape]) -> Mask:
    covered: Mask = np.logical_or.reduce([shape.mask for shape in shapes])
    return covered


def _is_small(shape: Shape, other: Shape) -> bool:
    """Whether a shape is too small for a digit beside another."""
    return shape.longer_side < SECOND_SHARE * other.longer_side
