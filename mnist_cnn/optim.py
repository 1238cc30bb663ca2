"""The optimizers and the learning-rate schedule that a recipe names."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from mnist_cnn.recipe import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer over every parameter of `model`, its step one call for all of them."""
    match recipe.optimizer:
        case "adam":
            return torch.optim.Adam(
                model.parameters(),
                fused=True,
                lr=recipe.peak_learning_rate,
                betas=(recipe.momentum, 0.999),
                weight_decay=recipe.weight_decay,
            )
        case "sgd":
            return torch.optim.SGD(
                model.parameters(),
                fused=True,
                lr=recipe.peak_learning_rate,
                momentum=recipe.momentum,
                nesterov=True,
                weight_decay=recipe.weight_decay,
            )


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps: int) -> OneCycleLR:
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
