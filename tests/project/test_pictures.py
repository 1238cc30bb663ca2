"""scripts/pictures.py: the pictures it makes, and the figures it makes of the answers."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

from mnist_cnn.data.dataset import MnistData
from mnist_cnn.model import MnistCnn

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "pictures.py"
FEW = 4


@pytest.fixture(scope="module")
def pictures() -> ModuleType:
    spec = spec_from_file_location("pictures", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    sys.path.insert(0, str(SCRIPT.parent))  # as Python does where it runs the script
    sys.modules[spec.name] = module  # where dataclasses look for it
    spec.loader.exec_module(module)
    sys.path.remove(str(SCRIPT.parent))
    return module


@pytest.mark.slow
def test_good_pictures_are_answered_and_others_refused(
    pictures: ModuleType, mnist: MnistData
) -> None:
    """A few of each kind; docs/pictures.md has the shares of many."""
    model = MnistCnn().eval()
    results = {
        kind: pictures.measure(kind, maker, mnist.test_images, mnist.test_labels, model, FEW)
        for kind, maker in {**pictures.GOOD, **pictures.BAD}.items()
    }
    answered = {kind: len(result.labels) for kind, result in results.items()}
    assert sum(answered[kind] for kind in pictures.GOOD) >= FEW * len(pictures.GOOD) - 3
    assert sum(answered[kind] for kind in pictures.BAD) <= 3
    assert answered["nothing"] == 0
    lines = pictures.table(results, FEW).splitlines()
    assert len(lines) == 2 + len(results)
    assert "| nothing | 100.0 (51.0 to 100.0) | – |" in lines


def test_a_kind_is_the_same_pictures_each_time(pictures: ModuleType, mnist: MnistData) -> None:
    model = MnistCnn().eval()
    one, other = (
        pictures.measure(
            "x", pictures.GOOD["plain"], mnist.test_images, mnist.test_labels, model, 2
        )
        for _ in range(2)
    )
    assert one.labels == other.labels
    assert all(map(torch.equal, one.logits, other.logits))


def test_the_calibration_error_is_the_mean_gap(pictures: ModuleType) -> None:
    probabilities = torch.tensor([0.95, 0.95, 0.65, 0.65], dtype=torch.float64)
    right = torch.tensor([True, True, True, False])
    # Two bins with gaps of .05 and .15, of half of the answers each.
    assert pictures.calibration_error(probabilities, right) == pytest.approx(0.10)


@pytest.mark.slow
def test_the_best_temperature_is_found(pictures: ModuleType) -> None:
    """Labels drawn by the probabilities of logits that are then made twice as sure."""
    random = np.random.default_rng(0)
    logits = torch.tensor(random.normal(0, 2, (20_000, 10)))
    labels = torch.tensor([random.choice(10, p=row) for row in logits.softmax(1).numpy()])
    assert pictures.best_temperature(2 * logits, labels) == pytest.approx(2, abs=0.06)
