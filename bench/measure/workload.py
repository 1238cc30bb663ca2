"""The workload as the runner uses it: `mnist_cnn`'s training, from reading the data on."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import torch

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Loading, Split
from mnist_cnn.engine.checkpoint import Checkpoints
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.engine.step import evaluated_by
from mnist_cnn.evaluation import find_mistakes
from mnist_cnn.events import Event, Mistakes
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Recipe
from mnist_cnn.train import TrainingOptions, seeded_model, train


class MnistTraining:
    """Runs of one recipe on one accelerator.

    Args:
        context: what is trained and by what.
        data_dir: folder of MNIST, read again by every run; None for the default folder.
        warmup_images: training images of the warm-up run.
        threads: number of threads that read and verify MNIST.
        graphs: the engine of captured or fused steps; None for the eager one.
        checkpoints: where measured runs save their states; None to save none.
    """

    def __init__(
        self,
        context: TrainingContext,
        data_dir: Path | None,
        warmup_images: int,
        *,
        threads: int = 1,
        graphs: GraphCache | None = None,
        checkpoints: Checkpoints | None = None,
    ) -> None:
        self._context = context
        self._data_dir = data_dir
        self._warmup_images = warmup_images
        self._threads = threads
        self._checkpoints = checkpoints
        self._graphs = graphs
        # The loader's pipeline distorts images on the CPU.
        is_resident = context.recipe.pipeline == "resident"
        self._data_device = context.accelerator.device if is_resident else torch.device("cpu")
        self.checksums: dict[str, str] = {}
        """SHA-256 of each data file, as last read."""
        self._last_run: tuple[MnistCnn, Split] | None = None

    def warm_up(self, *, whole_epoch: bool = False) -> Generator[Event, None, None]:
        """Train one epoch, and evaluate once, on noise: a warm-up does not look at the test set.

        Args:
            whole_epoch: whether the epoch has all training images, not only a few batches.
        """
        one_epoch = replace(self._context.recipe, epochs=1, evaluate_from_epoch=1)
        images = one_epoch.train_images if whole_epoch else self._warmup_images
        if self._graphs is not None:
            # Whole batches: nothing is captured for a size that no run has.
            images = max(images - images % one_epoch.batch_size, min(images, one_epoch.batch_size))
        options = TrainingOptions(graphs=self._graphs)
        return self._train(one_epoch, 0, options, lambda data: evaluated_on_noise(data, images))

    def run(self, seed: int) -> Generator[Event, None, None]:
        """Train once from random weights; this includes reading and verifying the data."""
        recipe = self._context.recipe
        options = TrainingOptions(graphs=self._graphs, checkpoints=self._checkpoints)
        return self._train(recipe, seed, options, lambda data: data)

    def mistakes(self) -> Mistakes | None:
        """The images that the last run misclassified at its end.

        Every rank calls this, once a run. None where there is no run, or at a second call.
        """
        if self._last_run is None:
            return None
        (model, split), self._last_run = self._last_run, None
        device = self._context.accelerator.device
        return find_mistakes(
            evaluated_by(model, self._context.kernels),
            split.evaluation_images.to(device),
            split.evaluation_labels.to(device),
            self._context,
        )

    def _train(
        self,
        recipe: Recipe,
        seed: int,
        options: TrainingOptions,
        change_split: Callable[[Split], Split],
    ) -> Generator[Event, None, None]:
        self._last_run = None  # frees its memory for this run
        loading = Loading(self._data_dir, self._data_device, self._threads)
        model = seeded_model(recipe, seed)  # while the data are read
        data = loading.result()
        self.checksums = dict(data.checksums)
        split = change_split(data.split(recipe.evaluation_split))
        self._last_run = model, split
        yield from train(model, replace(self._context, recipe=recipe), split, seed, options)


def evaluated_on_noise(data: Split, train_images: int) -> Split:
    """The first training images, and noise in place of the evaluation images: as many, as large."""
    generator = torch.Generator().manual_seed(0)
    shape = data.evaluation_images.shape
    return Split(
        train_images=data.train_images[:train_images],
        train_labels=data.train_labels[:train_images],
        evaluation_images=torch.randint(256, shape, dtype=torch.uint8, generator=generator),
        evaluation_labels=torch.zeros_like(data.evaluation_labels),
    )
