"""MNIST as tensors; every load verifies every byte."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from mnist_cnn.data import files
from mnist_cnn.data.download import fetch
from mnist_cnn.data.pieces import Reading
from mnist_cnn.data.progress import Progress
from mnist_cnn.errors import MissingDataError
from mnist_cnn.escaping import printable
from mnist_cnn.recipe import VALIDATION_IMAGES, EvaluationSplit

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Split:
    """The images to train on and those to evaluate on; no image is in both."""

    train_images: Tensor
    """Training images, (N, 28, 28), uint8."""
    train_labels: Tensor
    """Their labels, (N,), int64."""
    evaluation_images: Tensor
    """Evaluation images, (M, 28, 28), uint8."""
    evaluation_labels: Tensor
    """Their labels, (M,), int64."""


@dataclass(frozen=True, slots=True)
class MnistData:
    """The whole data set, in its canonical order, on the CPU or where `Loading` has put it."""

    train_images: Tensor
    """(60000, 28, 28), uint8: 0 is background, 255 ink."""
    train_labels: Tensor
    """(60000,), int64, 0 to 9."""
    test_images: Tensor
    """(10000, 28, 28), uint8."""
    test_labels: Tensor
    """(10000,), int64, 0 to 9."""
    checksums: Mapping[str, str]
    """SHA-256 of each uncompressed file, by the file's name."""

    def split(self, evaluation_split: EvaluationSplit) -> Split:
        """The images of a split; the tensors are views, not copies.

        Args:
            evaluation_split: "test": the 60,000 training and the 10,000 test images.
                "validation": the first 50,000 training images and the last 10,000 of them.
        """
        if evaluation_split == "test":
            return Split(self.train_images, self.train_labels, self.test_images, self.test_labels)
        first = len(self.train_images) - VALIDATION_IMAGES
        return Split(
            self.train_images[:first],
            self.train_labels[:first],
            self.train_images[first:],
            self.train_labels[first:],
        )


def load(
    data_dir: Path | None = None,
    *,
    offline: bool = False,
    progress: Progress | None = None,
    threads: int = 1,
) -> MnistData:
    """Read and verify MNIST; get missing files first.

    A folder that contains all four files may be read-only. Torchvision's layout and gzipped files
    are accepted.

    Args:
        data_dir: the folder; None for MNIST_DATA_DIR's, or else the user's cache.
        offline: do not use the network.
        progress: called with the progress of a download.
        threads: number of threads that read and verify.

    Returns:
        The data, on the CPU.

    Raises:
        MissingDataError: a file is missing or corrupt, and no source has it.
        UsageError: see `fetch`.
    """
    folder = files.data_folder(data_dir)
    contents = Reading(folder, threads).result() or _read(folder)
    if contents is None:
        for file in fetch(folder, offline=offline, progress=progress).files:
            if file.quarantined:
                path, quarantined = printable(str(file.path)), printable(str(file.quarantined))
                _log.warning("%s was not MNIST; it is now %s", path, quarantined)
        contents = _read(folder)
    if contents is None:
        message = f"the MNIST files in {folder} changed while being read; try again"
        raise MissingDataError(message, folder)
    return _data({file: _flat(verified) for file, verified in contents.items()})


class Loading:
    """Reads and verifies MNIST, from now on, while the caller does something else.

    Where a device copies from pinned memory, each piece is on its way to it as soon as it has been
    read, while others are read and verified. For other devices the data stay on the CPU.

    Args:
        data_dir: the folder, which has the files; None for MNIST_DATA_DIR's, or else the user's
            cache.
        device: where the data are needed.
        threads: number of threads that read and verify.
    """

    def __init__(self, data_dir: Path | None, device: torch.device, threads: int = 1) -> None:
        self._data_dir, self._threads = data_dir, threads
        self._copies = _PieceCopies(device) if has_pinned_memory(device) else None
        folder = files.data_folder(data_dir)
        if self._copies is None:
            self._reading = Reading(folder, threads)
        else:
            self._reading = Reading(folder, threads, self._copies.memory, self._copies.arrived)

    def result(self) -> MnistData:
        """The data; on the device they may still be on their way: what it does next waits for them.

        Raises:
            MissingDataError: a file is missing or corrupt.
        """
        contents = self._reading.result()
        if contents is None:
            return load(self._data_dir, offline=True, threads=self._threads)
        if self._copies is not None:
            return _data(self._copies.on_device)
        return _data({file: _flat(verified) for file, verified in contents.items()})


def has_pinned_memory(device: torch.device) -> bool:
    """Whether a device copies from memory that the system may not move, while the CPU works."""
    return device.type == "cuda"


class _PieceCopies:
    """Copies of the files on a device, made piece by piece.

    Threads give the copies to the device's current stream, which is the same for all of them. So
    what is done with the data afterwards waits for the copies.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pinned: dict[files.IdxFile, Tensor] = {}
        self.on_device: dict[files.IdxFile, Tensor] = {}
        """The bytes of each file, (B,), uint8."""

    def memory(self, file: files.IdxFile) -> memoryview:
        """Pinned memory for a file; torch keeps what earlier runs had."""
        self._pinned[file] = _pinned_bytes(file.size_bytes)
        self.on_device[file] = torch.empty(file.size_bytes, dtype=torch.uint8, device=self._device)
        return self._pinned[file].numpy().data

    def arrived(self, file: files.IdxFile, start: int, stop: int) -> None:
        """Copy these bytes."""
        source = self._pinned[file][start:stop]
        self.on_device[file][start:stop].copy_(source, non_blocking=True)


def _pinned_bytes(count: int) -> Tensor:
    return torch.empty(count, dtype=torch.uint8, pin_memory=True)


def _flat(verified: files.VerifiedFile) -> Tensor:
    """The bytes of a file, (B,), uint8, sharing its memory."""
    return torch.frombuffer(verified.content, dtype=torch.uint8)


def _data(flat: Mapping[files.IdxFile, Tensor]) -> MnistData:
    """The data set in these bytes, by file, sharing their memory."""

    def elements(file: files.IdxFile) -> Tensor:
        return flat[file][len(file.header) :].view(file.shape)

    return MnistData(
        train_images=elements(files.TRAIN_IMAGES),
        train_labels=elements(files.TRAIN_LABELS).long(),
        test_images=elements(files.TEST_IMAGES),
        test_labels=elements(files.TEST_LABELS).long(),
        checksums={file.name: file.sha256 for file in files.FILES},
    )


def _read(folder: Path) -> dict[files.IdxFile, files.VerifiedFile] | None:
    """All four files, or None when one of them is missing or corrupt."""
    verified_files: dict[files.IdxFile, files.VerifiedFile] = {}
    for file in files.FILES:
        verified = files.search(folder, file).verified
        if verified is None:
            return None
        verified_files[file] = verified
    return verified_files
