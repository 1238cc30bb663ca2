"""Pictures as people take them: what the network is shown of them, and what it then says.

The pictures are made from real MNIST test images, so that the right answer is known.
"""

from __future__ import annotations

import io
import os
import tracemalloc
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from accelerate import Accelerator
from hypothesis import given, settings, strategies as st
from PIL import Image, PngImagePlugin
from torch import Tensor

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split
from mnist_cnn.errors import UsageError
from mnist_cnn.inference import image_file
from mnist_cnn.inference.image_file import BOX, CENTRE, read_digit
from mnist_cnn.inference.predict import TEMPERATURE, chart, predict
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST
from mnist_cnn.train import seeded_model, train

pytestmark = pytest.mark.slow  # a network is trained first

DIGITS = 20
"""Test images that each kind of picture is made of."""
EXIF_ORIENTATION = 0x112

Bytes = npt.NDArray[np.uint8]
Photographer = Callable[[Bytes], Image.Image]


@pytest.fixture(scope="module")
def network(mnist: MnistData) -> Iterator[MnistCnn]:
    """A network that has seen enough digits to tell them apart."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    data = Split(
        mnist.train_images[:4000],
        mnist.train_labels[:4000],
        mnist.test_images[:100],
        mnist.test_labels[:100],
    )
    recipe = replace(FAST.with_epochs(1), batch_size=32, average_decay=0.9, average_interval=1)
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    model = seeded_model(recipe, 0)
    for _ in train(model, TrainingContext(recipe, accelerator), data, 0):
        pass
    yield model.eval()
    torch.set_num_threads(threads)


def enlarged(digit: Bytes, factor: int) -> Image.Image:
    size = (digit.shape[1] * factor, digit.shape[0] * factor)
    return Image.fromarray(digit).resize(size, Image.Resampling.BICUBIC)


def screenshot(digit: Bytes) -> Image.Image:
    """Large and light on dark, in colour."""
    return Image.merge("RGB", [enlarged(digit, 9)] * 3)


def scan(digit: Bytes) -> Image.Image:
    """Small, dark on white, off centre on a wide sheet, with a speck of dirt."""
    sheet = Image.new("L", (400, 250), 255)
    sheet.paste(enlarged(255 - digit, 3), (260, 40))
    sheet.paste(0, (20, 200, 23, 203))
    return sheet


def photo(digit: Bytes) -> Image.Image:
    """Blue ink on yellowish paper, grainy, the light falling from one side."""
    random = np.random.default_rng(int(digit.sum()))
    ink = np.zeros((380, 320))
    ink[60:312, 40:292] = np.asarray(enlarged(digit, 9)) / 255
    light = np.linspace(0.55, 0.95, 320) + random.normal(0, 0.02, ink.shape)
    paper, pen = np.array([1.0, 0.97, 0.85]), np.array([0.25, 0.3, 0.6])
    colour = light[..., None] * (paper + ink[..., None] * (pen - paper))
    return Image.fromarray((colour.clip(0, 1) * 255).astype(np.uint8))


def cutout(digit: Bytes) -> Image.Image:
    """Black on nothing: all that is drawn lies in the transparency."""
    picture = Image.new("RGBA", (112, 112), "black")
    picture.putalpha(enlarged(digit, 4))
    return picture


def white_cutout(digit: Bytes) -> Image.Image:
    """White on nothing."""
    picture = Image.new("LA", (112, 112), 255)
    picture.putalpha(enlarged(digit, 4))
    return picture


def deep(digit: Bytes) -> Image.Image:
    """16 bits a pixel."""
    return Image.fromarray(np.asarray(enlarged(255 - digit, 5)).astype(np.uint16) * 257)


def tight(digit: Bytes) -> Image.Image:
    """Without any margin."""
    picture = Image.fromarray(255 - digit)
    return picture.crop(Image.fromarray(digit).getbbox()).resize((75, 100))


def bilevel(digit: Bytes) -> Image.Image:
    """A fax: black or white."""
    return enlarged(digit, 6).convert("1")


@pytest.mark.parametrize(
    ("photographer", "file_type"),
    [
        (screenshot, "png"),
        (scan, "jpeg"),
        (photo, "jpeg"),
        (cutout, "png"),
        (white_cutout, "png"),
        (deep, "png"),
        (bilevel, "png"),
    ],
)
def test_a_picture_of_a_digit_is_read_as_the_digit(
    mnist: MnistData,
    network: MnistCnn,
    tmp_path: Path,
    photographer: Photographer,
    file_type: str,
) -> None:
    path = tmp_path / f"digit.{file_type}"
    original, agreed = [], 0
    for digit in mnist.test_images[:DIGITS].numpy():
        Image.fromarray(digit).save(tmp_path / "original.png")
        photographer(digit).save(path)
        answer = predict(network, tmp_path / "original.png").argmax()
        original.append(answer)
        agreed += int(predict(network, path).argmax() == answer)
    assert agreed >= DIGITS - 2
    right = torch.stack(original) == mnist.test_labels[:DIGITS]
    assert right.sum() >= DIGITS - 2


def test_an_mnist_image_comes_back_as_it_is(mnist: MnistData, tmp_path: Path) -> None:
    """Ink, size and place are MNIST's own: to the last bit for most, nearly so for the others."""
    same = near = 0
    for image in mnist.test_images[:100]:
        read = read_digit(save(Image.fromarray(image.numpy()), tmp_path))
        same += int(torch.equal(read, image))
        near += int((read.int() - image.int()).abs().float().mean() < 1)
    assert same >= 60
    # Where the centre of mass lies half-way between pixels, a faint grey decides.
    assert near >= 98


def save(picture: Image.Image, folder: Path) -> Path:
    path = folder / "picture.png"
    picture.save(path)
    return path


def test_the_probabilities_are_the_calibrated_softmax_of_the_normalised_digit(
    mnist: MnistData, network: MnistCnn, tmp_path: Path
) -> None:
    path = save(scan(mnist.test_images[0].numpy()), tmp_path)
    probabilities = predict(network, path)
    assert probabilities.shape == (10,)
    assert probabilities.sum().item() == pytest.approx(1)
    with torch.no_grad():
        pixels = (read_digit(path).float() / 255 - 0.1307) / 0.3081
        expected = (network(pixels.view(1, 1, 28, 28)) / TEMPERATURE).softmax(1)[0]
    assert torch.allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_type", ["png", "jpeg"])
def test_a_camera_held_otherwise_makes_no_difference(
    mnist: MnistData, tmp_path: Path, orientation: int, file_type: str
) -> None:
    undo = {
        1: None,
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }[orientation]
    upright = scan(mnist.test_images[3].numpy())
    upright.save(tmp_path / f"upright.{file_type}")
    exif = Image.Exif()
    exif[EXIF_ORIENTATION] = orientation
    turned = upright if undo is None else upright.transpose(undo)
    turned.save(tmp_path / f"turned.{file_type}", exif=exif)
    one = read_digit(tmp_path / f"upright.{file_type}").int()
    other = read_digit(tmp_path / f"turned.{file_type}").int()
    assert (one - other).abs().max() <= (0 if file_type == "png" else 16)


@pytest.mark.parametrize("photographer", [screenshot, scan, photo, tight])
def test_the_digit_is_placed_as_mnist_places_it(
    mnist: MnistData, tmp_path: Path, photographer: Photographer
) -> None:
    for image in mnist.test_images[:10]:
        read = read_digit(save(photographer(image.numpy()), tmp_path)).double()
        rows, columns = read.sum(1).nonzero().flatten(), read.sum(0).nonzero().flatten()
        sides = [int(lines[-1] - lines[0]) + 1 for lines in (rows, columns)]
        assert max(sides) in (BOX - 1, BOX)
        assert read.max() == 255
        for mass in (read.sum(1), read.sum(0)):
            centre = (mass * torch.arange(28.0)).sum() / mass.sum()
            assert abs(centre - CENTRE) <= 0.51 or 0 in (mass[0], mass[-1])


def test_the_pen_may_be_thin(tmp_path: Path) -> None:
    """A line far thinner than MNIST's is not lost in the shrinking."""
    pixels = np.full((900, 900), 230, dtype=np.uint8)
    pixels[100:800, 448:452] = 40
    read = read_digit(save(Image.fromarray(pixels), tmp_path))
    assert (read.max(dim=1).values > 150).sum() == BOX


def test_a_faint_shadow_is_no_ink(mnist: MnistData, tmp_path: Path) -> None:
    ink = np.asarray(enlarged(mnist.test_images[0].numpy(), 10)) / 255
    light = np.ones(ink.shape)
    light[:, :120] = 0.93
    plain = read_digit(save(grey(1 - 0.8 * ink), tmp_path)).float()
    shaded = read_digit(save(grey(light - 0.8 * ink * light), tmp_path)).float()
    assert (plain - shaded).abs().mean() < 5


def grey(brightness: npt.NDArray[np.float64]) -> Image.Image:
    return Image.fromarray((brightness.clip(0, 1) * 255).round().astype(np.uint8))


def noise(deviation: float) -> Image.Image:
    return grey(0.7 + np.random.default_rng(0).normal(0, deviation, (300, 400)))


@pytest.mark.parametrize(
    "picture",
    [
        Image.new("L", (100, 80), 255),
        Image.new("RGB", (100, 80), "black"),
        Image.new("RGBA", (50, 50), (0, 0, 0, 0)),
        Image.new("L", (1, 1), 128),
        Image.new("L", (1, 300), 128),
        Image.new("L", (300, 2), 128),
        noise(0.03),
        grey(np.linspace(0.3, 0.9, 300)[None, :] * np.ones((200, 1))),
    ],
    ids=["white", "black", "clear", "pixel", "column", "rows", "grainy paper", "shaded paper"],
)
def test_a_picture_of_nothing_is_refused(picture: Image.Image, tmp_path: Path) -> None:
    path = save(picture, tmp_path)
    with pytest.raises(UsageError, match=r"picture\.png shows no digit: the picture is blank"):
        read_digit(path)


def encoded(file_type: str) -> bytes:
    buffer = io.BytesIO()
    noise(0.2).save(buffer, file_type)
    return buffer.getvalue()


PNG, JPEG = encoded("png"), encoded("jpeg")


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (b"", "is not a PNG or JPEG picture"),
        (b"just text\n" * 20, "is not a PNG or JPEG picture"),
        (b"P5 2 2 255 abcd", "is not a PNG or JPEG picture"),
        (PNG[:20], "is a damaged picture"),
        (PNG[: len(PNG) // 2], "is a damaged picture"),
        (PNG[:-500], "is a damaged picture"),
        (PNG[:3000] + bytes(2000) + PNG[5000:], "is a damaged picture"),
        (JPEG[: len(JPEG) // 2], "is a damaged picture"),
    ],
    ids=["empty", "text", "pgm", "start", "half", "most", "overwritten", "half a jpeg"],
)
def test_a_file_that_is_no_picture_is_refused(
    content: bytes, complaint: str, tmp_path: Path
) -> None:
    path = tmp_path / "digit.png"
    path.write_bytes(content)
    with pytest.raises(UsageError, match=complaint) as refusal:
        read_digit(path)
    assert str(path) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_what_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="it is a folder"):
        read_digit(tmp_path)
    with pytest.raises(UsageError, match="No such file"):
        read_digit(tmp_path / "absent.png")
    os.mkfifo(tmp_path / "pipe")  # would wait for ever
    with pytest.raises(UsageError, match="not a regular file"):
        read_digit(tmp_path / "pipe")


@pytest.mark.parametrize("megapixels", [100, 400])
def test_decompression_bombs_are_refused_unread(megapixels: int, tmp_path: Path) -> None:
    """Only the header is claimed to be large: reading on would fail otherwise."""
    header = (10_000).to_bytes(4) + (100 * megapixels).to_bytes(4) + bytes([8, 0, 0, 0, 0])
    path = tmp_path / "bomb.png"
    with path.open("wb") as file:
        file.write(PNG[:8])
        PngImagePlugin.putchunk(file, b"IHDR", header)
        PngImagePlugin.putchunk(file, b"IDAT", b"")
    with pytest.raises(UsageError, match="has more than 64 million pixels; make it smaller"):
        read_digit(path)


def test_a_bomb_of_text_is_refused(tmp_path: Path) -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "0" * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    path = tmp_path / "bomb.png"
    noise(0.2).save(path, pnginfo=text)
    with pytest.raises(UsageError, match="is a damaged picture"):
        read_digit(path)


def with_chunk(
    picture: Image.Image, name: bytes, data: bytes, folder: Path, before: bytes = b"IDAT"
) -> Path:
    """A PNG file with one more chunk before another one: its pixels, or its end."""
    buffer, chunk = io.BytesIO(), io.BytesIO()
    picture.save(buffer, "png")
    PngImagePlugin.putchunk(chunk, name, data)
    start, mark, rest = buffer.getvalue().partition(before)
    path = folder / "changed.png"
    path.write_bytes(start[:-4] + chunk.getvalue() + start[-4:] + mark + rest)
    return path


def test_a_colour_profile_without_a_method_is_refused(tmp_path: Path) -> None:
    path = with_chunk(noise(0.2), b"iCCP", b"name\0", tmp_path, before=b"IEND")
    with pytest.raises(UsageError, match="is a damaged picture"):
        read_digit(path)


def test_more_transparent_colours_than_a_palette_may_have_are_refused(tmp_path: Path) -> None:
    palette = noise(0.2).convert("P", palette=Image.Palette.ADAPTIVE, colors=8)
    path = with_chunk(palette, b"tRNS", bytes(300), tmp_path)
    with pytest.raises(UsageError, match="is a damaged picture"):
        read_digit(path)


PROBABILITIES = torch.tensor([0.0, 0.0005, 0.0, 0.25, 0.0, 0.0, 0.0, 0.7, 0.0, 0.0494])


def test_the_chart_names_the_winner_first() -> None:
    lines = chart("digit.png", PROBABILITIES, "utf-8").splitlines()
    assert lines[0] == "digit.png: 7 (70.0 %)"
    assert len(lines) == 11
    assert lines[8] == "  7 " + "█" * 28 + " " * 12 + "  70.0 %"
    assert lines[4] == "  3 " + "█" * 10 + " " * 30 + "  25.0 %"
    assert lines[10] == "  9 ██" + " " * 38 + "   4.9 %"
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "no such encoding"])
def test_the_chart_does_without_blocks(encoding: str) -> None:
    text = chart("digit.png", PROBABILITIES, encoding)
    assert text.isascii()
    assert "  7 " + "#" * 28 + " " in text


@pytest.mark.parametrize(
    ("share", "text"),
    [(0.998, "99.8 %"), (0.99951, "99.9 %"), (0.99999, "99.9 %"), (1.0, "100.0 %")],
)
def test_no_certainty_is_claimed_that_is_not_there(share: float, text: str) -> None:
    probabilities: Tensor = torch.zeros(10, dtype=torch.float64)
    probabilities[4] = share
    assert chart("x", probabilities, "utf-8").startswith(f"x: 4 ({text})")


def test_weights_whose_result_is_no_number_are_refused(mnist: MnistData, tmp_path: Path) -> None:
    path = save(screenshot(mnist.test_images[0].numpy()), tmp_path)
    model = MnistCnn()
    for values in model.parameters():
        values.data.fill_(1e38)
    with pytest.raises(UsageError, match="the weights give no probabilities"):
        predict(model, path)


def test_the_charts_name_says_nothing_to_the_terminal() -> None:
    text = chart("a\x1b[31m\x07\u202e\nb.png", torch.full((10,), 0.1), "utf-8")
    assert text.startswith("a b.png: 0 (10.0 %)\n")


def test_a_picture_has_a_size(tmp_path: Path) -> None:
    with (tmp_path / "big.png").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(UsageError, match="it is larger than 67,108,864 bytes"):
        read_digit(tmp_path / "big.png")


@settings(max_examples=150, derandomize=True)
@given(
    file_type=st.sampled_from(["PNG", "JPEG"]),
    changes=st.lists(st.tuples(st.integers(0, 600), st.integers(0, 255)), max_size=4),
    length=st.integers(0, 600) | st.none(),
)
def test_a_changed_picture_is_refused_in_one_line_or_read(
    file_type: str,
    changes: list[tuple[int, int]],
    length: int | None,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    content = bytearray(encoded(file_type)[:length])
    for place, value in changes:
        if place < len(content):
            content[place] = value
    path = tmp_path_factory.getbasetemp() / "changed.picture"
    path.write_bytes(content)
    reason = ""
    try:
        assert read_digit(path).shape == (28, 28)
    except UsageError as error:
        reason = str(error)
    assert "\n" not in reason


def test_a_picture_of_many_dots_is_not_looked_at_dot_by_dot(tmp_path: Path) -> None:
    pixels = np.full((512, 512), 255, np.uint8)
    pixels[4:-4:9, 4:-4:9] = 0
    tracemalloc.start()
    with pytest.raises(UsageError, match="shows 3136 separate shapes"):
        read_digit(save(Image.fromarray(pixels), tmp_path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 * 1024**2  # else 1.5 GB


def test_a_line_that_winds_is_one_part() -> None:
    cells = torch.zeros(1, 127, 127)
    cells[:, ::2] = 1
    cells[:, 1::4, -1] = cells[:, 3::4, 0] = 1
    parts = image_file._parts(cells)
    assert torch.equal(parts, cells * parts.max())


def test_a_large_picture_is_converted_in_strips(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mnist: MnistData
) -> None:
    path = save(scan(mnist.test_images[0].numpy()), tmp_path)
    whole = read_digit(path)
    monkeypatch.setattr(image_file, "_STRIP_PIXELS", 1_300)
    assert torch.equal(read_digit(path), whole)


def test_a_picture_of_one_row_is_refused_unread(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="more than 30,000 pixels wide or high"):
        read_digit(save(Image.new("1", (30_001, 1)), tmp_path))
