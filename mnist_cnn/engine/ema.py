"""The exponential moving average of a network's weights, for recipes that have one."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Recipe


class WeightEma:
    """The average of weights and batch-norm statistics, updated while the network trains.

    torch's AveragedModel counts its updates on the CPU, so a GPU waits at each of them.

    Args:
        network: network that trains.
        recipe: decay and interval of the average.
    """

    def __init__(self, network: MnistCnn, recipe: Recipe) -> None:
        self.network = deepcopy(network).requires_grad_(requires_grad=False)
        """The averaged network."""
        self._averaged, self._trained = floats(self.network), floats(network)
        self._recipe = recipe
        self._steps = 0

    def state(self) -> dict[str, Any]:
        """The state on which later updates depend."""
        return {"network": self.network.state_dict(), "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self._steps = state["steps"]

    @torch.no_grad()
    def after_step(self) -> None:
        """Update the average; the engine calls this after every optimizer step."""
        self._steps += 1
        weight = weight_of_step(self._steps, self._recipe)
        if weight == 1:
            torch._foreach_copy_(self._averaged, self._trained)
        elif weight > 0:
            torch._foreach_lerp_(self._averaged, self._trained, weight)


def weight_of_step(step: int, recipe: Recipe) -> float:
    """Weight of the network in the average after a step, counted from 1."""
    if step % recipe.average_interval:
        return 0.0
    # The first update copies: the random initial weights get no share.
    return 1.0 if step == recipe.average_interval else 1 - recipe.average_decay


def floats(network: nn.Module) -> list[Tensor]:
    """Weights and batch-norm statistics, without batch norm's unused count of batches."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]
