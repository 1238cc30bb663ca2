"""MNIST as tensors: the real data, its split, and the folder layouts it is read from."""

from __future__ import annotations

import gzip
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from threading import Event
from typing import Any

import pytest
import torch

from mnist_cnn.data import dataset, files
from mnist_cnn.data.dataset import Loading, MnistData, load
from mnist_cnn.data.download import fetch
from mnist_cnn.data.pieces import Reading
from mnist_cnn.disk import open_regular_file
from mnist_cnn.errors import MissingDataError, UsageError


@pytest.fixture(scope="module")
def plain(mnist_data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that holds exactly the four uncompressed files."""
    folder = tmp_path_factory.mktemp("plain")
    fetch(folder, source_dir=mnist_data_dir, offline=True)
    return folder


def same(first: MnistData, second: MnistData) -> bool:
    return (
        torch.equal(first.train_images, second.train_images)
        and torch.equal(first.train_labels, second.train_labels)
        and torch.equal(first.test_images, second.test_images)
        and torch.equal(first.test_labels, second.test_labels)
    )


def test_shapes_and_types(mnist: MnistData) -> None:
    assert mnist.train_images.shape == (60_000, 28, 28)
    assert mnist.test_images.shape == (10_000, 28, 28)
    assert mnist.train_labels.shape == (60_000,)
    assert mnist.test_labels.shape == (10_000,)
    assert mnist.train_images.dtype == mnist.test_images.dtype == torch.uint8
    assert mnist.train_labels.dtype == mnist.test_labels.dtype == torch.int64


def test_it_is_mnist(mnist: MnistData) -> None:
    """Figures anyone can look up: first labels, images a class, mean and deviation of pixels."""
    assert mnist.train_labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert mnist.test_labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    assert mnist.train_labels.bincount().tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert mnist.test_labels.bincount().tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    counts = mnist.train_images.flatten().bincount(minlength=256).double()
    levels = torch.arange(256, dtype=torch.float64) / 255
    mean = (counts * levels).sum() / counts.sum()
    variance = (counts * (levels - mean) ** 2).sum() / counts.sum()
    assert mean.item() == pytest.approx(0.1307, abs=5e-5)
    assert variance.sqrt().item() == pytest.approx(0.3081, abs=5e-5)


def test_checksums_are_those_of_the_files(mnist: MnistData, plain: Path) -> None:
    found = {
        file.name: hashlib.sha256((plain / file.name).read_bytes()).hexdigest()
        for file in files.FILES
    }
    assert dict(mnist.checksums) == found


def test_validation_is_the_last_10000_training_images(mnist: MnistData) -> None:
    split = mnist.split("validation")
    assert torch.equal(split.train_images, mnist.train_images[:50_000])
    assert torch.equal(split.train_labels, mnist.train_labels[:50_000])
    assert torch.equal(split.evaluation_images, mnist.train_images[-10_000:])
    assert torch.equal(split.evaluation_labels, mnist.train_labels[-10_000:])


def test_test_split_is_everything(mnist: MnistData) -> None:
    split = mnist.split("test")
    assert torch.equal(split.train_images, mnist.train_images)
    assert torch.equal(split.train_labels, mnist.train_labels)
    assert torch.equal(split.evaluation_images, mnist.test_images)
    assert torch.equal(split.evaluation_labels, mnist.test_labels)


def test_torchvision_layout_and_reader_agree(mnist: MnistData, plain: Path, tmp_path: Path) -> None:
    """The same files read by torchvision hold the same images and labels, in the same order."""
    from torchvision.datasets import MNIST

    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for file in files.FILES:
        (raw / file.name).symlink_to(plain / file.name)
    assert same(load(tmp_path, offline=True), mnist)
    train, test = MNIST(tmp_path, train=True), MNIST(tmp_path, train=False)
    assert torch.equal(train.data, mnist.train_images)
    assert torch.equal(train.targets, mnist.train_labels)
    assert torch.equal(test.data, mnist.test_images)
    assert torch.equal(test.targets, mnist.test_labels)


@pytest.mark.slow
def test_gzipped_files_are_read(mnist: MnistData, plain: Path, tmp_path: Path) -> None:
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for number, file in enumerate(files.FILES):
        packed = gzip.compress((plain / file.name).read_bytes(), compresslevel=1)
        (raw if number % 2 else tmp_path).joinpath(f"{file.name}.gz").write_bytes(packed)
    before = sorted(tmp_path.rglob("*"))
    assert same(load(tmp_path, offline=True), mnist)
    assert sorted(tmp_path.rglob("*")) == before


def test_environment_names_the_folder(
    mnist: MnistData, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MNIST_DATA_DIR", str(plain))
    assert same(load(offline=True), mnist)
    monkeypatch.setenv("MNIST_DATA_DIR", str(plain / "nowhere"))
    with pytest.raises(UsageError, match="nowhere"):
        load(offline=True)


def test_loads_do_not_share_memory(plain: Path) -> None:
    load(plain, offline=True).train_images.zero_()
    assert load(plain, offline=True).train_images.any()


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder anyone may read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="mnist-bench-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder
        folder.chmod(0o755)


@contextmanager
def without_privileges() -> Iterator[None]:
    """Root may write anywhere, and tests in containers often run as root."""
    if os.geteuid():
        yield
        return
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_read_only_folder_will_do(plain: Path, public_folder: Path, mnist: MnistData) -> None:
    """All four files in a folder nobody may write to are enough."""
    fetch(public_folder, source_dir=plain, offline=True)
    (public_folder / ".lock").unlink()
    public_folder.chmod(0o555)
    with without_privileges():
        assert same(load(public_folder), mnist)
    assert not (public_folder / ".lock").exists()


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_an_incomplete_read_only_folder_is_refused(public_folder: Path) -> None:
    public_folder.chmod(0o555)
    with without_privileges(), pytest.raises(UsageError) as caught:
        load(public_folder)
    assert str(caught.value) == (
        f"cannot write MNIST to {public_folder} (Permission denied); "
        "choose another folder with --data-dir or MNIST_DATA_DIR"
    )


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_a_file_that_may_not_be_read_is_named(plain: Path, public_folder: Path) -> None:
    fetch(public_folder, source_dir=plain, offline=True)
    secret = public_folder / files.TEST_LABELS.name
    secret.chmod(0)
    with (
        without_privileges(),
        pytest.raises(UsageError, match=rf"{secret} cannot be read \(Permission denied\); run"),
    ):
        load(public_folder, offline=True)


@pytest.mark.parametrize("threads", [1, 2, 16])
@pytest.mark.parametrize("raw", ["", "MNIST/raw"])
def test_threads_read_the_same(
    mnist: MnistData, plain: Path, tmp_path: Path, threads: int, raw: str
) -> None:
    (tmp_path / raw).mkdir(parents=True, exist_ok=True)
    for file in files.FILES:
        (tmp_path / raw / file.name).symlink_to(plain / file.name)
    assert Reading(tmp_path, threads).result()
    assert same(load(tmp_path, offline=True, threads=threads), mnist)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("train-images-idx3-ubyte", 0),
        ("train-images-idx3-ubyte", files.PIECE_BYTES - 1),
        ("train-images-idx3-ubyte", files.PIECE_BYTES),
        ("train-images-idx3-ubyte", 47_040_015),
        ("train-labels-idx1-ubyte", 30_000),
        ("t10k-images-idx3-ubyte", 7_840_015),
        ("t10k-labels-idx1-ubyte", 10_007),
    ],
)
def test_one_other_bit_in_any_piece_is_found(
    plain: Path, tmp_path: Path, name: str, place: int
) -> None:
    for file in files.FILES:
        (tmp_path / file.name).symlink_to(plain / file.name)
    content = bytearray((plain / name).read_bytes())
    content[place] ^= 1
    (tmp_path / name).unlink()
    (tmp_path / name).write_bytes(content)
    assert Reading(tmp_path, threads=2).result() is None
    with pytest.raises(MissingDataError, match=f"{name} is corrupt or not MNIST: sha256"):
        load(tmp_path, offline=True, threads=2)


CPU = torch.device("cpu")


@pytest.fixture
def pinned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if the CPU were a device that copies from pinned memory."""
    monkeypatch.setattr(dataset, "has_pinned_memory", lambda _: True)
    ordinary = partial(torch.empty, dtype=torch.uint8)
    monkeypatch.setattr(dataset, "_pinned_bytes", ordinary)


def test_what_is_loaded_beside_other_work_is_the_same(mnist: MnistData, plain: Path) -> None:
    assert same(Loading(plain, CPU, threads=2).result(), mnist)


@pytest.mark.usefixtures("pinned")
@pytest.mark.parametrize("threads", [1, 3])
def test_pieces_copied_to_a_device_are_the_same(
    mnist: MnistData, plain: Path, threads: int
) -> None:
    data = Loading(plain, CPU, threads).result()
    assert same(data, mnist)
    assert data.checksums == mnist.checksums


@pytest.mark.usefixtures("pinned")
def test_a_corrupt_file_is_refused_though_its_pieces_were_copied(
    plain: Path, tmp_path: Path
) -> None:
    for file in files.FILES:
        (tmp_path / file.name).write_bytes((plain / file.name).read_bytes())
    with (tmp_path / "train-images-idx3-ubyte").open("r+b") as stream:
        stream.seek(47_040_015)
        stream.write(b"x")
    with pytest.raises(MissingDataError, match="train-images-idx3-ubyte is corrupt or not MNIST"):
        Loading(tmp_path, CPU, threads=2).result()


@pytest.mark.usefixtures("pinned")
def test_gzipped_files_are_loaded_beside_other_work_too(
    mnist: MnistData, plain: Path, tmp_path: Path
) -> None:
    for file in files.FILES:
        content = gzip.compress((plain / file.name).read_bytes(), compresslevel=1)
        (tmp_path / f"{file.name}.gz").write_bytes(content)
    assert same(Loading(tmp_path, CPU).result(), mnist)


@pytest.mark.usefixtures("pinned")
def test_reading_copying_and_other_work_go_on_side_by_side(
    mnist: MnistData, plain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each waits for the other: one after the other they would wait for ever."""
    begun, copied = Event(), Event()
    right_open, right_arrived = open_regular_file, dataset._PieceCopies.arrived

    def open_later(path: Path) -> Any:
        assert begun.wait(60), "the caller has not gone on"
        if path.name == "t10k-labels-idx1-ubyte":  # the last one
            assert copied.wait(60), "nothing has been copied"
        return right_open(path)

    def arrived(copies: Any, file: files.IdxFile, start: int, stop: int) -> None:
        right_arrived(copies, file, start, stop)
        copied.set()

    monkeypatch.setattr("mnist_cnn.data.pieces.open_regular_file", open_later)
    monkeypatch.setattr(dataset._PieceCopies, "arrived", arrived)
    loading = Loading(plain, CPU, threads=2)
    begun.set()
    assert same(loading.result(), mnist)
