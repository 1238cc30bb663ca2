"""The readers of `mnist_cnn`: the data set, pictures, weights, checkpoints."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import pickle
import random
import tempfile
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import torch
from accelerate import Accelerator
from PIL import ExifTags, Image, ImageDraw

from mnist_cnn.data.array_pickle import idx_contents
from mnist_cnn.data.files import IdxFile, read
from mnist_cnn.engine.checkpoint import Checkpoints, Point
from mnist_cnn.inference.image_file import read_digit
from mnist_cnn.inference.predict import logits_of
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.inference.weights import load_provenance, load_weights, save_weights
from mnist_cnn.model import MnistCnn
from tests.fuzz.promises import BrokenPromise, expect, expect_line, written

# The data set


_SHA256 = hashlib.sha256(b"x").hexdigest()
_IDX = IdxFile("x", _SHA256, _SHA256, (10, 28, 28))


def idx() -> list[bytes]:
    """A file of MNIST's kind."""
    return [_IDX.header + bytes(7840)]


def idx_gz() -> list[bytes]:
    """The same, compressed, and one that expands a thousand times."""
    # Without a time: a seed is to make the same file whenever it is used.
    return [gzip.compress(content, mtime=0) for content in (idx()[0], bytes(2_000_000))]


def read_idx(name: str, folder: Path, content: bytes) -> None:
    """Read a file of MNIST, which a changed one never is."""
    read(written(folder, name, content), _IDX)
    raise BrokenPromise("it was taken for MNIST")


def pickles() -> list[bytes]:
    """Packages as numpy 1 and 2, Python 2 and 3 write them."""
    images, labels = np.zeros((3, 784), np.float32), np.arange(3)
    pairs = ((images, labels),) * 3
    return [pickle.dumps(pairs, protocol) for protocol in (0, 1, 2, 3, 4, 5)]


def read_pickle(_: Path, content: bytes) -> None:
    """Read the package's pickle."""
    idx_contents(io.BytesIO(gzip.compress(content, 1)))


# Pictures, weights, checkpoints


@cache
def pictures() -> list[bytes]:
    """A digit in every mode and format, turned by its EXIF data, and an animation."""
    sheet = Image.new("L", (120, 90), 255)
    ImageDraw.Draw(sheet).line([(60, 20), (52, 70)], 0, 6)
    deep = Image.fromarray(np.asarray(sheet, np.uint16) * 257)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    made: list[bytes] = []
    for picture in (
        deep,
        *(sheet.convert(mode) for mode in ("L", "RGB", "RGBA", "P", "1", "CMYK")),
    ):
        for name in ("PNG", "JPEG"):
            stream = io.BytesIO()
            with contextlib.suppress(OSError):  # the format has no such mode
                picture.save(stream, name, exif=exif)
                made.append(stream.getvalue())
    stream = io.BytesIO()
    sheet.save(stream, "PNG", save_all=True, append_images=[sheet.rotate(9)] * 3)
    return [*made, stream.getvalue()]


def read_picture(folder: Path, content: bytes) -> None:
    """Read a digit from a picture."""
    digit = read_digit(written(folder, "x.png", content))
    expect(digit.shape == (28, 28) and digit.dtype == torch.uint8, "it is no image of MNIST")


@cache
def _network() -> MnistCnn:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MnistCnn()


@cache
def weights() -> list[bytes]:
    """The network's weights, with how they were trained."""
    trained = Provenance("fast", 1, 0, 0.994, "cpu", 1, "2.9")
    with tempfile.TemporaryDirectory() as folder:
        save_weights(_network(), Path(folder) / "x", trained.metadata())
        return [(Path(folder) / "x").read_bytes()]


def read_weights(folder: Path, content: bytes) -> None:
    """Read weights, how they were trained, and what they say of a picture."""
    path = written(folder, "x.safetensors", content)
    model, provenance = load_weights(path), load_provenance(path)
    if provenance is not None:
        for value in provenance.metadata().values():
            expect_line(value)
    logits = logits_of(model, written(folder, "x.png", pictures()[0]))
    expect(bool(logits.isfinite().all()), "the probabilities are no numbers")


@cache
def checkpoints() -> list[bytes]:
    """A checkpoint's file."""
    with tempfile.TemporaryDirectory() as folder:
        _checkpoints(Path(folder)).write(0, 1, {"model": _network().state_dict()})
        return [(Path(folder) / _CHECKPOINT).read_bytes()]


_CHECKPOINT = "seed-0-epoch-1-rank-0.pt"


def read_checkpoint(folder: Path, content: bytes) -> None:
    """Restore a checkpoint whose digest is right."""
    written(folder, _CHECKPOINT, content)
    point = Point(0, 1, (hashlib.sha256(content).hexdigest(),))
    python, network = random.getstate(), MnistCnn()
    try:
        with torch.random.fork_rng(devices=[]):
            _checkpoints(folder).restore(point, lambda s: network.load_state_dict(s["model"]))
    finally:
        random.setstate(python)


def _checkpoints(folder: Path) -> Checkpoints:
    ranks = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))
    return Checkpoints(folder, 1, cast("Accelerator", ranks))
