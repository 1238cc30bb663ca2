"""What several test modules need: real MNIST, got once and kept in the user's cache."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnist_cnn.data import MnistData, load
from mnist_cnn.download import fetch


@pytest.fixture(scope="session")
def mnist_data_dir() -> Path:
    """The default data folder, filled through the real sources where it is not yet."""
    return fetch().folder


@pytest.fixture(scope="session")
def mnist(mnist_data_dir: Path) -> MnistData:
    """The whole data set. Shared by all tests: do not write to its tensors."""
    return load(mnist_data_dir, offline=True)
