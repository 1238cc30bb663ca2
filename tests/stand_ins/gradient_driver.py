"""Computes the gradients of a whole and of a short batch, on however many ranks are launched.

A program, not a test: `tests/mnist_cnn/test_distributed.py` starts it. Arguments: the file to which
rank 0 writes the gradients, and the cases, each as kernels and size of a batch-norm group:
"torch:16".
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import cast

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.batches import Batches
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split, load
from mnist_cnn.engine.step import make_step
from mnist_cnn.recipe import FAST, Kernels
from mnist_cnn.train import seeded_model

IMAGES = 128 + 96
"""Sizes of the last two batches of 60,000."""


def gradients(accelerator: Accelerator, kernels: str, group: int) -> list[Tensor]:
    """The gradient of all parameters, flattened, for each batch."""
    recipe = replace(FAST.with_epochs(1), norm_batch_size=group)
    whole = load(offline=True).split("test")
    data = Split(
        whole.train_images[:IMAGES],
        whole.train_labels[:IMAGES],
        whole.evaluation_images[:1],
        whole.evaluation_labels[:1],
    )
    context = TrainingContext(recipe, accelerator, cast(Kernels, kernels))
    batches = Batches(data, context, 0)
    batches.load()
    step = make_step(seeded_model(recipe, 0).train(), context)
    by_batch = []
    for batch in batches.batches(batches.epoch(1)):
        step(batch)
        parameters = [p for group in step.optimizer.param_groups for p in group["params"]]
        by_batch.append(torch.cat([p.grad.flatten() for p in parameters]).clone())
        step.optimizer.zero_grad()
    return by_batch


def main(path: str, *cases: str) -> None:
    """Compute every case and save the gradients by the name of the case."""
    accelerator = Accelerator(cpu=True, mixed_precision="no", dynamo_backend="no")
    by_case = {}
    for case in cases:
        kernels, _, group = case.partition(":")
        by_case[case] = gradients(accelerator, kernels, int(group))
    if accelerator.is_main_process:
        torch.save(by_case, path)
    accelerator.end_training()


if __name__ == "__main__":
    main(*sys.argv[1:])
