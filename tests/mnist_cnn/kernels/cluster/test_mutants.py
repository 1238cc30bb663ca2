"""The tests of the CUDA kernels fail where the kernels are wrong: in formulas or in barriers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from mnist_cnn.data.dataset import MnistData
from mnist_cnn.engine.torch_program import TorchProgram
from tests.mnist_cnn.kernels.cluster.emulation import EmulatedKernels, sources
from tests.mnist_cnn.kernels.cluster.test_network import MOST, after_steps, by
from tests.mnist_cnn.kernels.programs import check_same

pytestmark = pytest.mark.thorough
ROOT = Path(__file__).resolve().parents[4]
WRONG_FORMULAS = {
    "statistics follow twice as fast": ("MOMENTUM = 0.1f", "MOMENTUM = 0.2f"),
    "variance of a sample as of all": ("variance * count / (count - 1)", "variance"),
    "epsilon": ("EPSILON = 1e-5f", "EPSILON = 1e-2f"),
    "a window is not mirrored": ("mirrored ? 8 - tap : tap", "tap"),
    "no skip connection": ("if (stem != nullptr) best +=", "if (false) best +="),
    "no gradient of it": (
        "(dz[pixel * 18 + channel]) + skipped",
        "(dz[pixel * 18 + channel]) + 0 * skipped",
    ),
    "no mean of dz": ("back.plain[channel] + normalised", "normalised"),
    "no mean of dz times y": ("* back.scaled[channel];", "* 0;"),
    "pooling passes gradients to all": ("k == winner ? d : 0", "winner < 0 ? 0 : d"),
    "an absent image counts": ("sum = image.is_there ? sum : 0;", ""),
    "no smoothing": ("arguments.smoothing / CLASSES", "0"),
    "no weight decay": ("arguments.decay * weight", "0"),
    "no Nesterov": ("slope + arguments.momentum * velocity", "velocity"),
    "an average of its own": ("average += share * (weight - average)", "average = weight"),
    "shifted the other way": ("row[6], y =", "-row[6], y ="),
    "a share of the pixels is lost": ("part() * STEPS_EACH; step < end", "part() * 2; step < end"),
}
MISSING_BARRIERS = {
    "none": ("EPSILON = 1e-5f", "EPSILON = 1e-5f"),
    "after the weights are loaded": (
        "load_weights<LAYER, STEPS, false>(shared.weights, weights);\n    block_sync();",
        "load_weights<LAYER, STEPS, false>(shared.weights, weights);",
    ),
    "of the cluster": ("    cluster_sync();\n    // A lane reads", "    // A lane reads"),
    "before parts are added": (
        "Shared& shared = image.shared;\n    block_sync();\n    if (thread() < SUMS)",
        "Shared& shared = image.shared;\n    if (thread() < SUMS)",
    ),
    "before a weight's gradient": (
        "    block_sync();\n    if (share.part() < PARTS)",
        "    if (share.part() < PARTS)",
    ),
}


def changed(folder: Path, change: tuple[str, str]) -> EmulatedKernels:
    old, new = change
    places = {name: text for name, text in sources().items() if old in text}
    ((name, text),) = places.items()
    assert text.count(old) == 1, old
    return EmulatedKernels(folder, exact=True, changed={name: text.replace(old, new)})


@pytest.mark.parametrize("name", WRONG_FORMULAS)
def test_a_wrong_formula_is_found(name: str, tmp_path: Path, mnist: MnistData) -> None:
    kernels = changed(tmp_path, WRONG_FORMULAS[name])
    ours, theirs = after_steps(by(kernels), mnist), after_steps(TorchProgram, mnist)
    with pytest.raises(AssertionError):
        check_same(ours, theirs, MOST)


PROGRAM = """
import sys
from pathlib import Path
from mnist_cnn.data.dataset import load
from tests.mnist_cnn.kernels.cluster.test_mutants import check_in_all_orders
check_in_all_orders(sys.argv[1], Path(sys.argv[2]), load())
print("the same")
"""


def check_in_all_orders(name: str, folder: Path, mnist: MnistData) -> None:
    """Fail where a result depends on the order in which threads run, or is not torch's."""
    kernels = changed(folder, MISSING_BARRIERS[name])
    theirs = after_steps(TorchProgram, mnist)
    for kernels.order in range(4):
        check_same(after_steps(by(kernels), mnist), theirs, MOST)


@pytest.mark.parametrize("name", MISSING_BARRIERS)
def test_a_missing_barrier_is_found(name: str, tmp_path: Path) -> None:
    """In a process of its own: a thread that reads what is not yet there may end it."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, name, tmp_path],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode == 0) == (name == "none"), done.stderr[-2000:]
    assert ("the same" in done.stdout) == (name == "none")
