"""The optimizers and the learning-rate schedule that a recipe names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TypeVar, cast

import torch
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


def build_schedule(optimizer: Optimizer, recipe: Recipe, steps: int) -> OneCycleLR:
    """One cycle over the whole run (Smith & Topin 2018), to be stepped after every batch."""
    warmup = recipe.warmup_fraction
    if steps * warmup == 1:
        # torch would divide by the length of a warm-up of one step, which it counts as none.
        warmup *= 0.99
    return OneCycleLR(
        optimizer,
        max_lr=recipe.peak_learning_rate,
        total_steps=steps,
        pct_start=warmup,
        anneal_strategy=recipe.anneal,
        cycle_momentum=recipe.cycle_momentum,
        div_factor=recipe.initial_divisor,
        final_div_factor=recipe.final_divisor,
    )
