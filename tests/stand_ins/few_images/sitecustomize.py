"""MNIST with few images, in every process that has this folder on its PYTHONPATH.

Python imports a module of this name as it starts, so this reaches ranks and their launchers too.
For tests of how processes are started and ended: what they learn does not matter there.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType
from typing import Any

MODULE = "mnist_cnn.data.dataset"
TRAIN_IMAGES = int(os.environ.get("FEW_IMAGES", "6400"))
EVALUATION_IMAGES = int(os.environ.get("FEW_EVALUATION_IMAGES", "1000"))


def shorten(dataset: ModuleType) -> None:
    """Make each split of the data set hold its first images only."""
    whole = dataset.MnistData.split

    def few(self: Any, evaluation_split: str) -> Any:
        split = whole(self, evaluation_split)
        return replace(
            split,
            train_images=split.train_images[:TRAIN_IMAGES],
            train_labels=split.train_labels[:TRAIN_IMAGES],
            evaluation_images=split.evaluation_images[:EVALUATION_IMAGES],
            evaluation_labels=split.evaluation_labels[:EVALUATION_IMAGES],
        )

    dataset.MnistData.split = few


class Finder(MetaPathFinder):
    """Finds the module as ever, and changes it right after it was executed.

    The module is not imported here: a process that needs no data must not import torch.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own specification, with a loader that also calls `shorten`."""
        if name != MODULE:
            return None
        sys.meta_path.remove(self)
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_shorten(module: ModuleType) -> None:
            execute(module)
            shorten(module)

        setattr(spec.loader, "exec_module", execute_and_shorten)  # noqa: B010
        return spec


sys.meta_path.insert(0, Finder())
