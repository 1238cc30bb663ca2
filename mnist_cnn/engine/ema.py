"""The exponential moving average of a network's weights that a recipe may ask for."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Recipe


class WeightEma:
    """Of weights and batch-norm statistics, kept beside the network while it trains.

    torch's AveragedModel counts its updates on the CPU, and so makes a GPU wait at every one.

    Args:
        network: what is trained.
        recipe: says how slowly the average follows, and how often.
    """

    def __init__(self, network: MnistCnn, recipe: Recipe) -> None:
        self.network = deepcopy(network).requires_grad_(requires_grad=False)
        """The averaged network."""
        self._mine, self._theirs = floats(self.network), floats(network)
        self._recipe = recipe
        self._steps = 0

    def state(self) -> dict[str, Any]:
        """What later averages depend on."""
        return {"network": self.network.state_dict(), "steps": self._steps}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self.network.load_state_dict(state["network"])
        self._steps = state["steps"]

    @torch.no_grad()
    def after_step(self) -> None:
        """To be called after every optimizer step."""
        self._steps += 1
        weight = weight_of_step(self._steps, self._recipe)
        if weight == 1:
            torch._foreach_copy_(self._mine, self._theirs)
        elif weight > 0:
            torch._foreach_lerp_(self._mine, self._theirs, weight)


def weight_of_step(step: int, recipe: Recipe) -> float:
    """What the network counts in the average after a step, counted from 1, of a recipe with one."""
    if step % recipe.average_interval:
        return 0.0
    # Random weights are not averaged in.
    return 1.0 if step == recipe.average_interval else 1 - recipe.average_decay


def floats(network: nn.Module) -> list[Tensor]:
    """Weights and batch-norm statistics, without the count of batches, which nothing reads."""
    return [value for value in network.state_dict().values() if value.is_floating_point()]
