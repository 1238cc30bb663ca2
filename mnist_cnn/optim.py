"""The optimizers and the learning-rate schedule that a recipe names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import OneCycleLR

from mnist_cnn.recipe import Recipe

Kind = TypeVar("Kind", bound=type[Optimizer])


def _eager(kind: Kind) -> Kind:
    """`kind` without what its methods do for torch's compiler, whose import takes over a second.

    torch.optim imports torch._dynamo at the first step and for every method marked as not to be
    compiled (torch/_compile.py, torch/optim/optimizer.py), to tell a compiler that is not there.
    The plain functions are below those wrappers.
    """
    plain = {
        name: getattr(getattr(kind, name), "__wrapped__", getattr(kind, name))
        for name in ("add_param_group", "zero_grad", "step")
    }
    step = torch.no_grad()(plain["step"])
    step.hooked = True  # Optimizer._patch_step_function then leaves it alone
    eager = type(kind.__name__, (kind,), plain | {"step": step})
    return cast(Kind, eager)


def build_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over `parameters`, its step one call for all of them."""
    match recipe.optimizer:
        case "adam":
            return _eager(torch.optim.Adam)(
                parameters,
                fused=True,
                lr=recipe.peak_learning_rate,
                betas=(recipe.momentum, 0.999),
                weight_decay=recipe.weight_decay,
            )
        case "sgd":
            return _eager(torch.optim.SGD)(
                parameters,
                fused=True,
                lr=recipe.peak_learning_rate,
                momentum=recipe.momentum,
                nesterov=True,
                weight_decay=recipe.weight_decay,
            )


def state_of(optimizer: Optimizer) -> dict[str, Any]:
    """`optimizer.state_dict()`, without torch's compiler being imported for it: see `_eager`."""
    inner = getattr(optimizer, "optimizer", optimizer)  # within Accelerate's wrapper
    method = Optimizer.state_dict
    state: dict[str, Any] = getattr(method, "__wrapped__", method)(inner)
    return state


def learning_rates(recipe: Recipe, steps: int) -> NDArray[np.float64]:
    """The learning rate of each step of `build_schedule`'s cycle, (steps,), all at once."""
    warmup = _warmup(recipe, steps)
    first = recipe.peak_learning_rate / recipe.initial_divisor
    last = first / recipe.final_divisor
    step = np.arange(steps, dtype=np.float64)
    top, end = warmup * steps - 1, steps - 1
    rising = step <= top
    progress = np.where(rising, step / top, (step - top) / (end - top))
    start = np.where(rising, first, recipe.peak_learning_rate)
    stop = np.where(rising, recipe.peak_learning_rate, last)
    if recipe.anneal == "cos":
        progress = (1 - np.cos(np.pi * progress)) / 2
    rates: NDArray[np.float64] = start + (stop - start) * progress
    return rates


def _warmup(recipe: Recipe, steps: int) -> float:
    """The share of the steps in which the rate rises."""
    # torch would divide by the length of a warm-up of one step, which it counts as none.
    return recipe.warmup_fraction * (0.99 if steps * recipe.warmup_fraction == 1 else 1)


def build_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> OneCycleLR:
    """One cycle over the whole run (Smith & Topin 2018), to be stepped after every batch."""
    return OneCycleLR(
        optimizer,
        max_lr=recipe.peak_learning_rate,
        total_steps=steps,
        pct_start=_warmup(recipe, steps),
        anneal_strategy=recipe.anneal,
        cycle_momentum=recipe.cycle_momentum,
        div_factor=recipe.initial_divisor,
        final_div_factor=recipe.final_divisor,
    )
