"""The workload as the runner sees it: `mnist_cnn`'s training, from reading the data on."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

from accelerate import Accelerator

from mnist_cnn.data.dataset import Split, load
from mnist_cnn.engine.checkpoint import Checkpoints
from mnist_cnn.engine.graph import GraphCache, capture_cuda_graph, without_capture
from mnist_cnn.engine.step import evaluated_by
from mnist_cnn.evaluation import mistakes
from mnist_cnn.events import Event, Mistakes
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Kernels, Recipe
from mnist_cnn.train import seeded_model, train


class MnistTraining:
    """Runs of one recipe on one accelerator.

    Args:
        recipe: what is trained.
        accelerator: what on.
        data_dir: where MNIST lies, read anew by every run; None for the default folder.
        warmup_images: training images of the warm-up run.
        kernels: what computes a step.
        captured: whether the device is to record whole steps and replay them.
        checkpoints: where measured runs keep their states, if they are to.
    """

    def __init__(
        self,
        recipe: Recipe,
        accelerator: Accelerator,
        data_dir: Path | None,
        warmup_images: int,
        kernels: Kernels = "torch",
        *,
        captured: bool = False,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._recipe = recipe
        self._accelerator = accelerator
        self._data_dir = data_dir
        self._warmup_images = warmup_images
        self._kernels = kernels
        self._checkpoints = checkpoints
        self._programs: GraphCache | None = None
        if captured or kernels == "triton":
            record = capture_cuda_graph if captured else without_capture
            self._programs = GraphCache(recipe, accelerator, kernels, record)
        self.checksums: dict[str, str] = {}
        """SHA-256 of each data file, as last read."""
        self._last: tuple[MnistCnn, Split] | None = None

    @property
    def capture_failure(self) -> str | None:
        """Why steps could not be recorded although they were to be; None until it is tried."""
        return self._programs.failure if self._programs else None

    def warm_up(self) -> Generator[Event, None, None]:
        """A run of one short epoch, with one whole evaluation."""
        short = replace(self._recipe, epochs=1, evaluate_from_epoch=1)
        return self._train(short, seed=0, images=self._warmup_images)

    def run(self, seed: int) -> Generator[Event, None, None]:
        """One training from random weights; the data is first touched within it."""
        return self._train(self._recipe, seed, self._recipe.train_images, self._checkpoints)

    def mistakes(self) -> Mistakes | None:
        """What the run that ended last got wrong in the end; asked once, of every rank."""
        if self._last is None:
            return None
        (model, split), self._last = self._last, None
        device = self._accelerator.device
        return mistakes(
            evaluated_by(model, self._kernels),
            split.evaluation_images.to(device),
            split.evaluation_labels.to(device),
            self._recipe,
            self._accelerator,
        )

    def _train(
        self, recipe: Recipe, seed: int, images: int, checkpoints: Checkpoints | None = None
    ) -> Generator[Event, None, None]:
        self._last = None  # its memory is the next run's
        data = load(self._data_dir, offline=True)
        self.checksums = dict(data.checksums)
        split = data.split(recipe.evaluation_split)
        split = replace(
            split,
            train_images=split.train_images[:images],
            train_labels=split.train_labels[:images],
        )
        model = seeded_model(recipe, seed)
        self._last = model, split
        yield from train(
            model,
            recipe,
            self._accelerator,
            split,
            seed,
            self._kernels,
            self._programs,
            checkpoints,
        )
