"""A checkpoint of a stranger takes no more memory than it has bytes, even with the right digest."""

from __future__ import annotations

import hashlib
import io
import random
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator

from mnist_cnn.engine.checkpoint import Checkpoints, Point
from mnist_cnn.errors import DamagedCheckpointError

FILE = "seed-0-epoch-1-rank-0.pt"
EXPANDED_BYTES = 1 << 28
Edit = Callable[[str, bytes], bytes]


def checkpoints(folder: Path) -> Checkpoints:
    """Those of the only rank."""
    ranks = SimpleNamespace(process_index=0, num_processes=1, device=torch.device("cpu"))
    return Checkpoints(folder, 1, cast("Accelerator", ranks))


def restore(folder: Path, content: bytes) -> dict[str, Any]:
    """What a training gets from a file whose digest is right."""
    (folder / FILE).write_bytes(content)
    state: dict[str, Any] = {}
    python, numbers = random.getstate(), torch.get_rng_state()
    try:
        point = Point(0, 1, (hashlib.sha256(content).hexdigest(),))
        checkpoints(folder).restore(point, state.update)
    finally:
        random.setstate(python)
        torch.set_rng_state(numbers)
    return state


@pytest.fixture
def written(tmp_path: Path) -> bytes:
    """A checkpoint of four numbers."""
    checkpoints(tmp_path).write(0, 1, {"model": {"weight": torch.arange(4.0)}})
    return (tmp_path / FILE).read_bytes()


def edited(content: bytes, edit: Edit, method: int = zipfile.ZIP_STORED) -> bytes:
    """The same zip file with other members."""
    copy = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content)) as source, zipfile.ZipFile(copy, "w", method) as into:
        for name in source.namelist():
            into.writestr(name, edit(name, source.read(name)))
    return copy.getvalue()


def saved(state: object) -> bytes:
    """Another state, as torch saves it."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def shared_bytes(content: bytes) -> bytes:
    """A thousand more members, all of them the same bytes of the file."""
    copy = io.BytesIO(content)
    with zipfile.ZipFile(copy, "a") as archive:
        archive.writestr("archive/more", bytes(100_000))
        first = archive.getinfo("archive/more")
        for number in range(1_000):
            entry = zipfile.ZipInfo(f"archive/more{number}")
            entry.header_offset, entry.CRC = first.header_offset, first.CRC
            entry.file_size = entry.compress_size = first.file_size
            archive.filelist.append(entry)
    return copy.getvalue()


def test_what_was_written_is_restored(written: bytes, tmp_path: Path) -> None:
    state = restore(tmp_path, written)
    assert state["model"]["weight"].tolist() == [0, 1, 2, 3]


def test_a_file_that_expands_is_refused_before_it_does(written: bytes, tmp_path: Path) -> None:
    def grow(name: str, data: bytes) -> bytes:
        return data + bytes(EXPANDED_BYTES) if name.endswith("/data/0") else data

    bomb = edited(written, grow, zipfile.ZIP_DEFLATED)
    assert len(bomb) < EXPANDED_BYTES / 100
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedCheckpointError, match="it is compressed"):
        restore(tmp_path, bomb)
    grown_bytes = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    assert grown_bytes < EXPANDED_BYTES / 2


@pytest.mark.parametrize(
    ("forge", "reason"),
    [
        (shared_bytes, "it holds more than its"),
        (lambda _: saved({"model": bytearray(b"long")}), "it names '.*bytearray'"),
        (lambda _: saved([[] for _ in range(400_000)]), "list of tensors"),
        (lambda _: saved({"model": torch.zeros(1).expand(10**12)}), "more numbers than are stored"),
        (lambda content: content[: len(content) // 2], "BadZipFile"),
        (lambda content: content.replace(b"\x00\x00\x40\x40", b"\x00\x00\x40\x41"), "CRC"),
    ],
    ids=["shared", "bytearray", "long pickle", "repeated", "cut", "other numbers"],
)
def test_what_is_never_written_is_refused(
    forge: Callable[[bytes], bytes], reason: str, written: bytes, tmp_path: Path
) -> None:
    with pytest.raises(DamagedCheckpointError, match=f"^cannot continue from {FILE}.*{reason}"):
        restore(tmp_path, forge(written))
