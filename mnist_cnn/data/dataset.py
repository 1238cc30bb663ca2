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
from mnist_cnn.data.pieces import read_pieces
from mnist_cnn.data.progress import Progress
from mnist_cnn.errors import MissingDataError
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
    """The whole data set, on the CPU, in its canonical order."""

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

    Raises:
        MissingDataError: a file is missing or corrupt, and no source has it.
        UsageError: see `fetch`.
    """
    folder = files.data_folder(data_dir)
    contents = read_pieces(folder, threads) or _read(folder)
    if contents is None:
        for file in fetch(folder, offline=offline, progress=progress).files:
            if file.quarantined:
                _log.warning("%s was not MNIST; it is now %s", file.path, file.quarantined)
        contents = _read(folder)
    if contents is None:
        message = f"the MNIST files in {folder} changed while being read; try again"
        raise MissingDataError(message, folder)
    return MnistData(
        train_images=_elements(contents[files.TRAIN_IMAGES]),
        train_labels=_elements(contents[files.TRAIN_LABELS]).long(),
        test_images=_elements(contents[files.TEST_IMAGES]),
        test_labels=_elements(contents[files.TEST_LABELS]).long(),
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


def _elements(verified: files.VerifiedFile) -> Tensor:
    """The images or labels, uint8, in the file's shape, sharing its memory."""
    file = verified.file
    flat = torch.frombuffer(verified.content, dtype=torch.uint8, offset=len(file.header))
    return flat.view(file.shape)
