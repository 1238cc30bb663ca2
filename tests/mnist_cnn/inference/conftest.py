"""What is exported, and a user without a token for the Hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants

from mnist_cnn.data.dataset import MnistData
from mnist_cnn.inference.weights import save_weights
from mnist_cnn.model import MnistCnn
from tests.factories import TRAINING


@pytest.fixture(scope="module")
def few_images(mnist: MnistData) -> Iterator[MnistData]:
    """Measured on 200 test images, where the number does not matter."""
    few = replace(mnist, test_images=mnist.test_images[:200], test_labels=mnist.test_labels[:200])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mnist_cnn.data.dataset.load", lambda folder: few)
        yield few


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random weights, said to be trained."""
    path = tmp_path_factory.mktemp("weights") / "model.safetensors"
    torch.manual_seed(3)
    model = MnistCnn()
    model.train()(torch.randn(64, 1, 28, 28))
    save_weights(model, path, TRAINING.metadata())
    return path


@pytest.fixture
def no_token(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    home = tmp_path_factory.mktemp("home")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_OIDC_RESOURCE"):
        monkeypatch.delenv(name, raising=False)
    # What the client would keep in the user's home; not every version of it has all of these.
    for name in ("HF_TOKEN_PATH", "HF_STORED_TOKENS_PATH", "AGENT_HARNESSES_PATH"):
        monkeypatch.setattr(constants, name, str(home / name), raising=False)
        monkeypatch.setenv(name, str(home / name))
    # For the child process that uploads.
    monkeypatch.setenv("HF_HOME", str(home))
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True, raising=False)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
