"""The optimizer's update in compiled code."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from mnist_cnn.kernels.native.library import library


class NativeSgd(torch.optim.Optimizer):
    """torch.optim.SGD with Nesterov momentum, for one parameter.

    torch's own takes ten times as long, because a training step evicts the code around its
    arithmetic from the cache each time.

    Args:
        parameter: contiguous, float32, on the CPU.
        lr: learning rate.
        momentum: Nesterov momentum, as in torch.optim.SGD.
        weight_decay: factor of the L2 penalty, as in torch.optim.SGD.
    """

    # Without torch's wrapper, which imports its compiler for a second: see mnist_cnn.optim.
    add_param_group = getattr(
        torch.optim.Optimizer.add_param_group,
        "__wrapped__",
        torch.optim.Optimizer.add_param_group,
    )

    def __init__(
        self, parameter: nn.Parameter, lr: float, momentum: float, weight_decay: float
    ) -> None:
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay}
        super().__init__([parameter], defaults)
        self._parameter = parameter
        # torch's first velocity is the first gradient, the same as after a zero velocity.
        self.state[parameter]["momentum_buffer"] = self._velocity = torch.zeros_like(
            parameter, requires_grad=False
        )

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameter with its gradient."""
        del closure
        group, gradient = self.param_groups[0], self._parameter.grad
        assert gradient is not None
        assert gradient.is_contiguous()
        library().sgd(
            self._parameter.data_ptr(),
            self._velocity.data_ptr(),
            gradient.data_ptr(),
            len(gradient),
            group["lr"],
            group["momentum"],
            group["weight_decay"],
        )

    # So torch.optim.Optimizer does not wrap it for its profiler and hooks; the wrapper takes three
    # times as long as the step.
    step.hooked = True  # type: ignore[attr-defined]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state, as torch does, into the velocity that `step` uses."""
        super().load_state_dict(state_dict)
        self._velocity.copy_(self.state[self._parameter]["momentum_buffer"])
        self.state[self._parameter]["momentum_buffer"] = self._velocity

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Remove the gradient."""
        del set_to_none
        self._parameter.grad = None
