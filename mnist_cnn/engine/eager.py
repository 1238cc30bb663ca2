"""What goes through an epoch's steps: here one by one, as the loop asks for them.

Its like in `mnist_cnn.engine.graph` has a whole step done by the device alone, from
tensors it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor, nn

from mnist_cnn.batches import Batches, Epoch
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.ema import WeightEma
from mnist_cnn.engine.step import evaluated_by, make_step
from mnist_cnn.evaluation import count
from mnist_cnn.model import MnistCnn
from mnist_cnn.optim import build_schedule, state_of
from mnist_cnn.recipe import Kernels, Recipe


class Engine(Protocol):
    """What trains a network and counts what it knows; the loop does not know which it has."""

    def epoch(self, epoch: Epoch) -> Tensor:
        """Go through an epoch's steps, whose number a run fixes beforehand.

        Returns:
            What each of this rank's images cost, (m,), float32; the device may still be at work.
        """
        ...

    def count(self) -> Tensor:
        """`mnist_cnn.evaluation.count` of the network as it would be kept now."""
        ...

    def finish(self) -> None:
        """Leave in the model the weights that were counted last."""
        ...


class EagerEngine:
    """Every step asked of the device by the loop: on any device, by any kernels, by many ranks.

    Args:
        model: what is trained, in place.
        recipe: how.
        accelerator: the device, the precision and the ranks.
        data: what it is evaluated on.
        batches: what it is trained on.
        kernels: what computes a step.
        steps: optimizer steps of the whole run.
    """

    def __init__(
        self,
        model: MnistCnn,
        recipe: Recipe,
        accelerator: Accelerator,
        data: Split,
        batches: Batches,
        kernels: Kernels,
        steps: int,
    ) -> None:
        device = accelerator.device
        batches.load()
        self._model, self._recipe, self._accelerator = model, recipe, accelerator
        self._batches = batches
        self._images = data.evaluation_images.to(device)
        self._labels = data.evaluation_labels.to(device)
        model.to(device).train()
        self._step = make_step(model, recipe, accelerator, kernels)
        self._optimizer = self._step.optimizer
        # Not prepared: Accelerate's wrapper would step it once a process.
        self._schedule = build_schedule(self._optimizer, recipe, steps)
        if accelerator.scaler is not None:
            # Only a gradient scaler (fp16) needs the wrapper, which looks packages up every step.
            self._optimizer = accelerator.prepare(self._optimizer)
        # Made last: the step has given the model other storage.
        self._average = WeightEma(model, recipe) if recipe.average_decay > 0 else None
        kept = self._average.network if self._average else model
        self._evaluated = evaluated_by(kept, kernels)

    def epoch(self, epoch: Epoch) -> Tensor:
        """See `Engine`."""
        costs: list[Tensor] = []
        for batch in self._batches.batches(epoch):
            costs.append(self._step(batch))
            self._optimizer.step()
            self._schedule.step()
            self._optimizer.zero_grad()
            if self._average:
                self._average.after_step()
        return torch.cat(costs)

    def count(self) -> Tensor:
        """See `Engine`."""
        _share_statistics(self._model, self._accelerator)
        if self._average:
            _share_statistics(self._average.network, self._accelerator)
        self._evaluated.eval()
        with torch.inference_mode():
            totals = count(
                self._evaluated, self._images, self._labels, self._recipe, self._accelerator
            )
        self._evaluated.train()
        return totals

    def state(self) -> dict[str, Any]:
        """All that later steps depend on but the generators; tensors themselves, no copies."""
        scaler = self._accelerator.scaler
        return {
            "model": self._model.state_dict(),
            "optimizer": state_of(self._optimizer),
            "schedule": self._schedule.state_dict(),
            "average": self._average.state() if self._average else None,
            "scaler": None if scaler is None else scaler.state_dict(),
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
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


def _share_statistics(model: nn.Module, accelerator: Accelerator) -> None:
    """Average batch norm's running statistics over the ranks, so that all evaluate one network."""
    if accelerator.num_processes > 1:
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer.copy_(accelerator.reduce(buffer, "mean"))
