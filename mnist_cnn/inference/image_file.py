"""Converts a scan or a photo of a digit to an image like MNIST's own.

MNIST's digits were "size normalized to fit in a 20x20 pixel box while preserving their aspect
ratio", grey from the resampling, and "centered in a 28x28 image by computing the center of mass
of the pixels, and translating the image so as to position this point at the center".
Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits".
"""

from __future__ import annotations

import io
import math
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import ExifTags, Image, UnidentifiedImageError
from torch import Tensor

from mnist_cnn.augment import SIDE
from mnist_cnn.disk import read_file
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.inference.legibility import Shape, find_obstacle

Grey = npt.NDArray[np.float32]
"""Brightness or ink of each pixel, (height, width)."""

BOX = 20
"""Longer side of the digit, in pixels."""
CENTRE = 14
"""Position of the centre of mass, to the nearest whole pixel (measured on all of MNIST)."""

LARGEST_BYTES = 64 << 20
"""Most bytes of a picture's file."""
MOST_PIXELS = 64_000_000
"""Most pixels of a picture: decoded they take 256 MB."""
MOST_SIDE = 30_000
"""Most pixels of a picture's longer side."""
_STRIP_PIXELS = 4_000_000
"""Pixels of a picture that are converted at a time."""
LARGEST_SIDE = 512
"""Largest side of a picture after the first resize, which evens out noise."""
FAINTEST_INK = 0.08
"""Smallest contrast of a digit, as a share of black against white."""
CLEAREST_NOISE = 2.0
"""Smallest median of a digit's ink, beyond what the noise explains, in standard deviations of the
noise."""
INK_SHARE = 0.1
"""Smallest ink of a digit's pixel, as a share of the darkest pixel's."""
SPECK_SHARE = 0.05
"""Smallest ink of a part of the digit, as a share of the heaviest part's; less is dirt."""
MOST_PARTS = 50
"""Most parts that may be a digit or beside one: each is looked at by itself."""

_OF_DAMAGED_FILES = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    IndexError,
    struct.error,
    zlib.error,
)
"""What Pillow's decoders raise for damaged files."""


def read_digit(path: Path) -> Tensor:
    """The digit in a PNG or JPEG file, in MNIST's form.

    The picture may have any size, be grey or colour, transparent, rotated by its EXIF data, light
    on dark or dark on light.

    Returns:
        (28, 28), uint8: 0 is background, 255 ink.

    Raises:
        UsageError: the file cannot be read, is not such a picture, or does not show one whole
            digit; the message says what it shows and how to take a better picture.
    """
    picture, turn = _open(path)
    for backdrop in ("white", "black"):
        try:
            grey = _grey(picture, turn, backdrop)
        except _OF_DAMAGED_FILES as error:  # a pixel of a colour that the palette lacks
            raise UsageError(f"{path} is a damaged picture: {error}") from error
        ink, noise = _ink(grey)
        if ink.max() >= FAINTEST_INK:
            try:
                digit = _digit(ink, noise)
            except NotOneDigit as error:
                raise UsageError(f"{path} {error}") from None
            return torch.from_numpy(_centred(_boxed(digit)))
    raise UsageError(
        f"{path} shows no digit: the picture is blank, or the ink differs from the background by "
        f"less than {100 * FAINTEST_INK:.0f} % of black against white"
    )


class NotOneDigit(Exception):
    """A picture shows something else; the message goes on after the picture's name."""


def _open(path: Path) -> tuple[Image.Image, Image.Transpose | None]:
    """The decoded picture, and how to turn it upright: that takes less memory once it is small."""
    try:
        content = io.BytesIO(read_file(path, LARGEST_BYTES))
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged EXIF data: the pixels may be intact
            with Image.open(content, formats=("PNG", "JPEG")) as picture:
                _check_size(path, picture)
                picture.load()
                return picture, _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    except Image.DecompressionBombError:
        raise UsageError(f"{path} has {_TOO_MANY}") from None
    except UnidentifiedImageError:
        kind = _format_of(content.getvalue())
        raise UsageError(
            f"{path} is not a PNG or JPEG picture{kind}: save it as PNG or JPEG, for example from "
            "a viewer's export menu"
        ) from None
    except _OF_DAMAGED_FILES as error:
        raise UsageError(f"{path} is a damaged picture: {error}") from error


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What turns a picture upright, by EXIF's orientation."""
_TOO_MANY = f"more than {MOST_PIXELS // 1_000_000} million pixels; make it smaller"


def _check_size(path: Path, picture: Image.Image) -> None:
    """Refuse before decoding what would take much memory: a blank picture is a small file."""
    if picture.width * picture.height > MOST_PIXELS:
        raise UsageError(f"{path} has {_TOO_MANY}")
    if max(picture.size) > MOST_SIDE:
        raise UsageError(f"{path} is more than {MOST_SIDE:,} pixels wide or high; make it smaller")


_OTHER_FORMATS = (
    (b"ftyphei", 4, "HEIC"),
    (b"ftyphev", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIC"),
    (b"ftypmsf1", 4, "HEIC"),
    (b"ftypavif", 4, "AVIF"),
    (b"WEBP", 8, "WebP"),
    (b"GIF8", 0, "GIF"),
    (b"BM", 0, "BMP"),
    (b"II*\0", 0, "TIFF"),
    (b"MM\0*", 0, "TIFF"),
    (b"%PDF", 0, "PDF"),
    (b"<svg", 0, "SVG"),
)
"""Formats that cameras and programs write: first bytes, their place, name."""


def _format_of(content: bytes) -> str:
    """``" but HEIC"`` where a file's first bytes are those of another known format, else ``""``."""
    for mark, place, name in _OTHER_FORMATS:
        if content[place : place + len(mark)] == mark:
            return f" but {name}"
    return ""


def _grey(picture: Image.Image, turn: Image.Transpose | None, backdrop: str) -> Grey:
    """Brightness, 0 to 1, over the backdrop where transparent; at most `LARGEST_SIDE` wide."""
    shrink = min(1.0, LARGEST_SIDE / max(picture.size))
    width, height = (max(1, round(side * shrink)) for side in picture.size)
    narrow = Image.new("F", (width, picture.height))
    # In strips: as floats, a large picture would take several times the memory of its pixels.
    strip = max(1, _STRIP_PIXELS // picture.width)
    for top in range(0, picture.height, strip):
        bottom = min(picture.height, top + strip)
        rows = _floats(picture.crop((0, top, picture.width, bottom)), backdrop)
        narrow.paste(rows.resize((width, bottom - top), Image.Resampling.BOX), (0, top))
    small = narrow.resize((width, height), Image.Resampling.BOX)
    return _array(small if turn is None else small.transpose(turn)) / np.float32(255)


def _floats(picture: Image.Image, backdrop: str) -> Image.Image:
    """Brightness, 0 to 255, over the backdrop where transparent."""
    if picture.mode.startswith("I"):  # 16 bits a pixel; `convert` would clip them to 8
        return Image.fromarray(np.asarray(picture, dtype=np.float32) / 257)
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ground = Image.new("RGBA", picture.size, backdrop)
        return Image.alpha_composite(ground, picture).convert("F")
    return picture.convert("RGB").convert("F")


def _ink(grey: Grey) -> tuple[Grey, float]:
    """The difference of each pixel from the background, in the direction of the digit's ink.

    Returns:
        The ink, as far as it is more than the noise explains, and the noise's standard deviation.

    The background is a plane through the border's brightness, which removes light that falls from
    one side. Ink is dark or light, whichever differs more.
    """
    background, noise = _background(grey)
    difference = grey - background
    dark = np.maximum(-difference - 3 * noise, 0)
    light = np.maximum(difference - 3 * noise, 0)
    # Squares: a stroke must outweigh a broad faint shadow.
    ink: Grey = dark if np.square(dark).sum() >= np.square(light).sum() else light
    return ink, noise


def _background(grey: Grey) -> tuple[Grey, float]:
    """The background's brightness at each pixel, and the standard deviation of its noise."""
    height, width = grey.shape
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    rim = max(1, min(height, width) // 25)
    border = np.ones(grey.shape, dtype=bool)
    border[rim:-rim, rim:-rim] = False
    terms = np.stack([np.ones_like(x), x, y], axis=-1)
    values, border_terms = grey[border], terms[border]
    # Least squares, three times, each over the pixels that fit: a stroke or a shadow at the border
    # must not tilt the plane. The first plane is level, at a brightness that the border has: where
    # half of it is black and half white, nothing fits their mean.
    median = np.percentile(values, 50, method="lower")
    plane = np.array([median, 0, 0], dtype=np.float32)
    tolerance, noise = 0.2, 0.0
    for _ in range(3):
        fits = np.abs(values - border_terms @ plane) <= tolerance
        plane = np.linalg.lstsq(border_terms[fits], values[fits], rcond=None)[0]
        noise = float(1.4826 * np.median(np.abs(values[fits] - border_terms[fits] @ plane)))
        tolerance = max(3 * noise, 0.02)
    background: Grey = terms @ plane
    return background, noise


def _digit(ink: Grey, noise: float) -> Grey:
    """The digit's ink, 0 to 1, without specks of dirt, cropped to the digit.

    Raises:
        NotOneDigit: there is something else, or too little of it.
    """
    height, width = ink.shape
    inked = ink > INK_SHARE * ink.max()
    # Parts are found on a coarse grid, on which strokes broken by noise are connected.
    cell = math.ceil(max(height, width) / 128)
    parts = _parts(F.max_pool2d(torch.from_numpy(inked)[None].float(), cell, ceil_mode=True))
    # One cell around each part belongs to it: the soft edges of the strokes.
    parts = F.max_pool2d(parts, 3, stride=1, padding=1)
    part_of_pixel = parts.repeat_interleave(cell, 1).repeat_interleave(cell, 2)[0, :height, :width]
    number = part_of_pixel.long().numpy()
    weights = np.bincount(number.ravel(), np.where(inked, ink, 0).ravel())
    heavy = weights >= SPECK_SHARE * weights.max()
    if heavy.sum() > MOST_PARTS:
        raise NotOneDigit(f"shows {heavy.sum()} separate shapes: crop the picture to one digit")
    kept = heavy[number]
    if np.median(ink[kept & inked]) < CLEAREST_NOISE * noise:
        raise NotOneDigit(
            "shows ink that hardly differs from the noise of the picture: use more light or a "
            "darker pen"
        )
    shapes = [Shape.of(inked & (number == part)) for part in np.flatnonzero(heavy)]
    if obstacle := find_obstacle(shapes):
        raise NotOneDigit(obstacle)
    rows, columns = np.nonzero(kept & inked)
    box = np.s_[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    digit = np.where(kept, ink, np.float32(0))[box]
    return _to_one(digit)


def _parts(cells: Tensor) -> Tensor:
    """Number the connected parts of (1, H, W) cells of 0 or 1; the background is 0."""
    parts = torch.arange(1.0, cells.numel() + 1).view_as(cells) * cells
    while True:  # the highest number spreads through each part
        spread = F.max_pool2d(parts, 3, stride=1, padding=1) * cells
        if torch.equal(spread, parts):
            return parts
        # By one cell a pass, and from the cell whose number has come: a spiral is thousands long.
        of_cell = spread.flatten()[(spread.long() - 1).clamp(min=0)]
        parts = of_cell * cells


def _boxed(digit: Grey) -> Grey:
    """The digit, resized to a longer side of 20 pixels, with its darkest pixel 1."""
    height, width = digit.shape
    scale = BOX / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return _to_one(_array(Image.fromarray(digit).resize(size, Image.Resampling.BILINEAR)))


def _to_one(ink: Grey) -> Grey:
    """The same, scaled to a darkest pixel of 1: thin strokes are faint after the resize."""
    scaled: Grey = ink / ink.max()
    return scaled


def _array(picture: Image.Image) -> Grey:
    return np.asarray(picture, dtype=np.float32)


def _centred(digit: Grey) -> npt.NDArray[np.uint8]:
    """The digit in a 28x28 image, its centre of mass in the middle, to whole pixels."""
    pixels = np.rint(digit * 255).astype(np.uint8)
    corner = []
    for axis, length in enumerate(digit.shape):
        mass = pixels.sum(axis=1 - axis, dtype=np.int64)
        centre = (mass @ np.arange(length)) / mass.sum()
        corner.append(min(max(math.ceil(CENTRE - 0.5 - centre), 0), SIDE - length))
    top, left = corner
    image = np.zeros((SIDE, SIDE), dtype=np.uint8)
    image[top : top + digit.shape[0], left : left + digit.shape[1]] = pixels
    return image
