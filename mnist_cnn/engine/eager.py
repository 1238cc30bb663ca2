"""Trains step by step, operation by operation: on any device, by any kernels, by several ranks.

`mnist_cnn.engine.graph` has the other engine, which replays captured steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.batch_norm import shares_batch_norm
from mnist_cnn.batches import Batches, Epoch
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.ema import WeightEma
from mnist_cnn.engine.statistics import measure_statistics
from mnist_cnn.engine.step import evaluated_by, make_step
from mnist_cnn.evaluation import count
from mnist_cnn.model import MnistCnn
from mnist_cnn.optim import build_schedule, state_of


class Engine(Protocol):
    """Trains a network epoch by epoch, and evaluates it; the loop works with any engine."""

    def epoch(self, epoch: Epoch) -> Tensor:
        """Do the steps of an epoch; a run has fixed their number beforehand.

        Returns:
            The loss of each image of this rank, (m,), float32. The device may still be at work.
        """
        ...

    def count(self, statistics_images: Tensor) -> Tensor:
        """Evaluate the network as a run would leave it now: see `mnist_cnn.evaluation.count`.

        Args:
            statistics_images: see `measure_statistics`; without any, its statistics are those of
                the training steps.
        """
        ...

    def network(self, *, averaged: bool) -> MnistCnn:
        """A network with the present weights and statistics: the trained ones, or the average.

        Without an average both are the same. An evaluation uses the average.
        """
        ...

    def finish(self) -> None:
        """Leave in the model the weights that were evaluated last."""
        ...


class EagerEngine:
    """See `Engine`.

    Args:
        model: network to train, in place.
        context: what is trained and by what.
        data: the images to evaluate on.
        batches: the images to train on.
        steps: optimizer steps of the whole run.
    """

    def __init__(
        self, model: MnistCnn, context: TrainingContext, data: Split, batches: Batches, steps: int
    ) -> None:
        recipe, accelerator = context.recipe, context.accelerator
        batches.load()
        self._model, self._context, self._accelerator = model, context, accelerator
        self._batches = batches
        self._images = data.evaluation_images.to(accelerator.device)
        self._labels = data.evaluation_labels.to(accelerator.device)
        model.to(accelerator.device).train()
        self._step = make_step(model, context)
        self._optimizer = self._step.optimizer
        # Not prepared: Accelerate's wrapper would step it once for each process.
        self._schedule = build_schedule(self._optimizer, recipe, steps)
        if accelerator.scaler is not None:
            # Only a gradient scaler (fp16) needs the wrapper, which looks packages up every step.
            self._optimizer = accelerator.prepare(self._optimizer)
        # Last: the step has moved the model's weights to other storage.
        self._average = WeightEma(model, recipe) if recipe.average_decay > 0 else None
        evaluated = self._average.network if self._average else model
        self._evaluated = evaluated_by(evaluated, context.kernels)

    def epoch(self, epoch: Epoch) -> Tensor:
        """See `Engine`."""
        losses: list[Tensor] = []
        for batch in self._batches.batches(epoch):
            losses.append(self._step(batch))
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
            if self._average:
                self._average.after_step()
        return torch.cat(losses)

    def count(self, statistics_images: Tensor) -> Tensor:
        """See `Engine`."""
        if len(statistics_images):
            measure_statistics(self.network(averaged=True), statistics_images, self._context)
        elif not shares_batch_norm(self._context.recipe, self._accelerator.num_processes):
            _average_statistics(self._model, self._accelerator)
            if self._average:
                _average_statistics(self._average.network, self._accelerator)
        self._evaluated.eval()
        with torch.inference_mode():
            totals = count(self._evaluated, self._images, self._labels, self._context)
        self._evaluated.train()
        return totals

    def network(self, *, averaged: bool) -> MnistCnn:
        """See `Engine`."""
        return self._average.network if self._average and averaged else self._model

    def state(self) -> dict[str, Any]:
        """All that later steps depend on, except the generators; the tensors are not copied."""
        scaler = self._accelerator.scaler
        return {
            "model": self._model.state_dict(),
            "optimizer": state_of(self._optimizer),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state() if self._average else None,
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        # In place: compiled code has the addresses.
        self._model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._schedule.load_state_dict(state["schedule"])
        if self._average:
            self._average.restore(state["average"])
        if self._accelerator.scaler is not None:
            self._accelerator.scaler.load_state_dict(state["scaler"])

    def finish(self) -> None:
        """See `Engine`."""
        if self._average:
            self._model.load_state_dict(self._average.network.state_dict())


def _average_statistics(model: nn.Module, accelerator: Accelerator) -> None:
    """Average batch norm's running statistics over the ranks, so that all evaluate one network."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, "mean"))
