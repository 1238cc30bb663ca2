"""Draw docs/profile.svg: where the time of a whole run of `fast` goes on this machine.

.venv/bin/python scripts/profile_picture.py docs/profile.svg
"""

from __future__ import annotations

import sys
from pathlib import Path
from time import perf_counter
from typing import Annotated

import matplotlib as mpl
import typer
from matplotlib import pyplot as plt

from bench.measure.accelerator import start_accelerator
from bench.measure.request import ComputeRequest
from mnist_cnn.console import run
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import load
from mnist_cnn.errors import UsageError
from mnist_cnn.events import EpochTrained
from mnist_cnn.inference.weights import check_writable
from mnist_cnn.kernels import native
from mnist_cnn.recipe import FAST, Kernels
from mnist_cnn.train import seeded_model, train

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def picture(path: Annotated[Path, typer.Argument(help="File to write, SVG or PNG.")]) -> None:
    """Train once with compiled code and draw the time of its layers and of the rest."""
    if path.suffix not in (".svg", ".png"):
        raise UsageError(f"{path} must end in .svg or .png")
    check_writable(path)
    accelerator, recipe, setup, _ = start_accelerator(FAST, ComputeRequest(device="cpu"))
    if setup.kernels == "torch":
        raise UsageError(f"there is no compiled code: {native.unavailable_reason()}")
    context = TrainingContext(recipe, accelerator, setup.kernels)
    data = load().split(recipe.evaluation_split)
    for _ in range(2):  # the first run is the warm-up
        native.take_layer_seconds()
        training_seconds, start = 0.0, perf_counter()
        for event in train(seeded_model(recipe, 0), context, data, 0):
            if isinstance(event, EpochTrained):
                training_seconds = perf_counter() - start
        layers = native.take_layer_seconds()
    layers["augmentation, update, waiting, Python"] = training_seconds - sum(layers.values())
    draw(layers, setup.kernels, setup.device_name, path)


def draw(seconds: dict[str, float], kernels: Kernels, machine: str, path: Path) -> None:
    """Draw one bar per layer and direction, the longest at the top, in % of the training time."""
    mpl.rcParams["svg.hashsalt"] = "mnist-bench"  # the same picture for the same numbers
    total = sum(seconds.values())
    names = sorted(seconds, key=lambda name: seconds[name])
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    bars = axes.barh(names, [100 * seconds[name] / total for name in names], color="#3b6ea5")
    axes.bar_label(bars, fmt="%.1f", padding=3)
    axes.set_xlabel(f"% of the {total:.1f} s of training in a run of fast\n{kernels}, {machine}")
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.08)
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)


if __name__ == "__main__":
    sys.exit(run(app, "profile_picture.py", sys.argv[1:]))
