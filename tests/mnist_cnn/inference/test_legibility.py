"""What is not one whole digit is refused, in one line that says what it shows and what to do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from mnist_cnn.__main__ import main
from mnist_cnn.errors import UsageError
from mnist_cnn.inference.image_file import read_digit
from mnist_cnn.inference.legibility import Shape, find_obstacle
from mnist_cnn.inference.weights import save_weights
from mnist_cnn.model import MnistCnn

SIZE = (400, 300)


def sheet() -> tuple[Image.Image, ImageDraw.ImageDraw]:
    picture = Image.new("L", SIZE, 245)
    return picture, ImageDraw.Draw(picture)


def seven(draw: ImageDraw.ImageDraw, left: int = 160, top: int = 90, side: int = 120) -> None:
    corner, foot = (left + side * 2 // 3, top), (left + side // 4, top + side)
    draw.line([(left, top), corner, foot], fill=30, width=12, joint="curve")


def two(draw: ImageDraw.ImageDraw) -> None:
    seven(draw, left=60)
    seven(draw, left=230)


def above(draw: ImageDraw.ImageDraw) -> None:
    seven(draw, top=20)
    seven(draw, top=165)


def boxed(draw: ImageDraw.ImageDraw) -> None:
    seven(draw)
    draw.rectangle((120, 60, 280, 240), outline=60, width=4)


def circled(draw: ImageDraw.ImageDraw) -> None:
    seven(draw)
    draw.ellipse((100, 50, 300, 250), outline=60, width=4)


def bordered(draw: ImageDraw.ImageDraw) -> None:
    seven(draw)
    draw.rectangle((0, 0, SIZE[0] - 1, SIZE[1] - 1), outline=40, width=5)


def ruled(draw: ImageDraw.ImageDraw) -> None:
    seven(draw)
    for y in range(25, SIZE[1], 50):
        draw.line([(0, y), (SIZE[0], y + 6)], fill=150, width=2)


def squared(draw: ImageDraw.ImageDraw) -> None:
    ruled(draw)
    for x in range(25, SIZE[0], 50):
        draw.line([(x, 0), (x + 6, SIZE[1])], fill=150, width=2)


def cut(draw: ImageDraw.ImageDraw) -> None:
    seven(draw, left=-20)


def edge(draw: ImageDraw.ImageDraw) -> None:
    seven(draw)
    draw.rectangle((0, 0, 30, SIZE[1]), fill=90)


def halves(draw: ImageDraw.ImageDraw) -> None:
    draw.rectangle((SIZE[0] // 2, 0, SIZE[0], SIZE[1]), fill=0)


def tiny(draw: ImageDraw.ImageDraw) -> None:
    draw.line([(200, 150), (204, 150), (202, 156)], fill=30, width=2)


def wide(draw: ImageDraw.ImageDraw) -> None:
    draw.line([(60, 150), (200, 110), (340, 150)], fill=30, width=12)


@pytest.mark.parametrize(
    ("drawing", "shown", "remedy"),
    [
        (two, "shows 2 separate shapes", "crop the picture to one digit"),
        (above, "shows 2 separate shapes", "crop the picture to one digit"),
        (boxed, "shows a frame", "crop the picture inside of it"),
        (circled, "shows a frame or a circle", "crop the picture inside of it"),
        (bordered, "shows a frame", "crop the picture inside of it"),
        (ruled, "shows a line from left to right", "use plain paper, or crop between the lines"),
        (squared, "shows", "crop"),
        (cut, "shows a digit that is cut off at the left", "take in some background"),
        (edge, "shows", "crop"),
        (halves, "shows a line from top to bottom", "crop"),
        (tiny, "pixels, too few to tell", "take it from closer"),
        (wide, "times as wide as high", "crop the picture to one upright digit"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_what_is_not_one_digit_is_refused(
    drawing: object, shown: str, remedy: str, tmp_path: Path
) -> None:
    assert callable(drawing)
    picture, draw = sheet()
    drawing(draw)
    path = tmp_path / "picture.png"
    picture.save(path)
    with pytest.raises(UsageError) as caught:
        read_digit(path)
    message = str(caught.value)
    assert message.startswith(f"{path} ")
    assert shown in message
    assert remedy in message
    assert "\n" not in message


def grainy(contrast: float, noise: float) -> Image.Image:
    picture, draw = sheet()
    seven(draw)
    ink = (245 - np.asarray(picture, dtype=np.float64)) / 215
    grain = np.random.default_rng(0).normal(0, noise, ink.shape)
    pixels = 255 * (0.8 - contrast * ink + grain)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


@pytest.mark.parametrize(
    ("contrast", "noise", "complaint"),
    [(0.05, 0.0, "less than 8 % of black against white"), (0.2, 0.08, "hardly differs from the")],
)
def test_too_little_contrast_is_refused(
    contrast: float, noise: float, complaint: str, tmp_path: Path
) -> None:
    grainy(contrast, noise).save(tmp_path / "picture.png")
    with pytest.raises(UsageError, match=complaint):
        read_digit(tmp_path / "picture.png")


@pytest.mark.parametrize(("contrast", "noise"), [(0.2, 0.01), (0.7, 0.08)])
def test_enough_contrast_is_read(contrast: float, noise: float, tmp_path: Path) -> None:
    grainy(contrast, noise).save(tmp_path / "picture.png")
    assert read_digit(tmp_path / "picture.png").max() == 255


def mask(*rows: str) -> npt.NDArray[np.bool_]:
    return np.array([[letter == "#" for letter in row] for row in rows])


def test_strokes_of_one_digit_need_not_touch() -> None:
    top = mask(*["." * 40] * 5, *["..." + "#" * 20 + "." * 17] * 3, *["." * 40] * 32)
    rest = mask(*["." * 40] * 10, *["..." + "#" * 16 + "." * 21] * 25, *["." * 40] * 5)
    assert find_obstacle([Shape.of(top), Shape.of(rest)]) is None


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmif1\0\0\0\0", "HEIC"),
        (b"\0\0\0\x18ftypavif\0\0\0\0", "AVIF"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "WebP"),
        (b"GIF89a\1\0\1\0", "GIF"),
        (b"BM\0\0\0\0", "BMP"),
        (b"II*\0\x08\0\0\0", "TIFF"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_other_formats_are_named_and_there_is_a_way_out(
    content: bytes, name: str, tmp_path: Path
) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)
    with pytest.raises(UsageError) as caught:
        read_digit(path)
    assert str(caught.value).startswith(f"{path} is not a PNG or JPEG picture but {name}: save it")


def test_the_command_answers_what_it_can_and_exits_with_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, drawing in (("one.png", seven), ("two.png", two)):
        picture, draw = sheet()
        drawing(draw)
        picture.save(tmp_path / name)
    save_weights(MnistCnn(), tmp_path / "weights.safetensors")
    words = [str(tmp_path / name) for name in ("weights.safetensors", "two.png", "one.png")]
    assert main(["predict", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out.startswith(f"{tmp_path / 'one.png'}: ")
    assert printed.err == (
        f"mnist_cnn: error: {tmp_path / 'two.png'} shows 2 separate shapes: crop the picture to "
        "one digit\n"
    )
