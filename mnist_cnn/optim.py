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
    """A subclass of `kind` that does not import torch's compiler, which takes over a second.

    torch.optim imports torch._dynamo at the first step, and for every method that is marked as not
    to be compiled (torch/_compile.py, torch/optim/optimizer.py). The subclass uses the plain
    functions under those wrappers.
    """
    plain = {
        name: getattr(getattr(kind, name), "__wrapped__", getattr(kind, name))
        for name in ("add_param_group", "zero_grad", "step")
    }
    step = torch.no_grad()(plain["step"])
    step.hooked = True  # so Optimizer._patch_step_function does not wrap it
    eager = type(kind.__name__, (kind,), plain | {"step": step})
    return cast(Kind, eager)


def build_optimizer(parameters: Iterable[nn.Parameter], recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over `parameters`; one fused call updates all of them."""
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
    """`optimizer.state_dict()`, without the import of torch's compiler: see `_eager`."""
    inner = getattr(optimizer, "optimizer", optimizer)  # inside Accelerate's wrapper
    method = Optimizer.state_dict
    state: dict[str, Any] = getattr(method, "__wrapped__", method)(inner)
    return state


def learning_rates(recipe: Recipe, steps: int) -> NDArray[np.float64]:
    """The learning rates of all steps of `build_schedule`'s cycle, (steps,)."""
    warmup = _warmup(recipe, steps)
    first = recipe.peak_learning_rate / recipe.initial_divisor
    last = first / recipe.final_divisor
    step = np.arange(steps, dtype=np.float64)
    peak_step, last_step = warmup * steps - 1, steps - 1
    rising = step <= peak_step
    progress = np.where(rising, step / peak_step, (step - peak_step) / (last_step - peak_step))
    start = np.where(rising, first, recipe.peak_learning_rate)
    stop = np.where(rising, recipe.peak_learning_rate, last)
    if recipe.anneal == "cos":
        progress = (1 - np.cos(np.pi * progress)) / 2
    rates: NDArray[np.float64] = start + (stop - start) * progress
    return rates


def _warmup(recipe: Recipe, steps: int) -> float:
    """The share of the steps in which the learning rate rises."""
    # torch counts a warm-up of one step as of length zero, and would divide by it.
    return recipe.warmup_fraction * (0.99 if steps * recipe.warmup_fraction == 1 else 1)


def build_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> OneCycleLR:
    """One cycle over the whole run (Smith & Topin 2018); step it after every batch."""
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
