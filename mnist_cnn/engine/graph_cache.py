"""Keeps the engine that replays captured steps, and finds the code that works on a device.

Whether code works on a device shows when it is tried. What fails is not tried again. Smaller shapes
of the same kernels are tried, where the device has too little of something; then torch's operators,
captured and at last not. Kernels that do not run are not tried once more without a capture.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Split
from mnist_cnn.engine.capture import Capture, CaptureError, without_capture
from mnist_cnn.engine.graph import GraphEngine
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels.triton import is_shortage
from mnist_cnn.kernels.triton.shapes import SHAPES, Shapes, halved
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Kernels, Recipe

_ABOUT_THE_DEVICE = (UsageError, torch.OutOfMemoryError, torch.AcceleratorError)
"""Errors that other kernels would not mend: they are of the device, which may be of no more use."""


@dataclass(frozen=True, slots=True)
class StepCode:
    """Code of the steps, and whether they are captured."""

    kernels: Kernels
    capture: Capture
    shapes: Shapes | None = None
    """Launch parameters of Triton's kernels; None for other code."""

    @property
    def is_captured(self) -> bool:
        """Whether the device replays the steps."""
        return self.capture is not without_capture


@dataclass(frozen=True, slots=True)
class FailedCode:
    """Code that could not be compiled, captured or run, so that other code trains."""

    code: StepCode
    reason: str
    """First line of the error."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Alternatives:
    """What may be another where it fails: nobody has asked for it by name."""

    kernels: bool = False
    capture: bool = False


NO_ALTERNATIVES = Alternatives()


class GraphCache:
    """Keeps the engine of one recipe on one device, with its captured steps, from run to run.

    Args:
        context: what is trained, by one process; a run may take fewer epochs or images of it.
        capture: `capture_cuda_graph`, or `without_capture` on devices without CUDA graphs.
        alternatives: what else may train.
        shapes: launch parameters of Triton's kernels, where they train.
    """

    def __init__(
        self,
        context: TrainingContext,
        capture: Capture,
        alternatives: Alternatives = NO_ALTERNATIVES,
        shapes: Shapes = SHAPES,
    ) -> None:
        self._context = context
        self._codes = _codes(context.kernels, capture, alternatives, shapes)
        self._engine: GraphEngine | None = None
        self.failures: list[FailedCode] = []
        """What has failed, in this order."""

    @property
    def code(self) -> StepCode:
        """What trains; before the first engine, what will be tried first."""
        return self._codes[0]

    def engine(self, model: MnistCnn, recipe: Recipe, data: Split, steps: int) -> GraphEngine:
        """An engine that is ready to train `model`, by the first code that does not fail.

        Args:
            model: network to train; moved to the device.
            recipe: the context's recipe, or the same with other epochs.
            data: images and labels, on the CPU or on the device.
            steps: optimizer steps of the whole run.

        Raises:
            UsageError: the kernels fail, and no others may train.
        """
        while True:
            try:
                if self._engine is None:
                    context = replace(self._context, kernels=self.code.kernels)
                    self._engine = GraphEngine(context, self.code.capture, self.code.shapes, data)
                self._engine.start(model, recipe, data, steps)
                return self._engine
            except Exception as error:  # compilers, drivers and libraries raise what they like
                self._give_up(error)
            # Not in the handler: its traceback holds the tensors of what failed.
            self._engine = None

    def settle(self) -> None:
        """Try no other code from now on: what trains has been compared with the CPU's steps."""
        self._codes = self._codes[:1]

    def _give_up(self, error: Exception) -> None:
        """Go on to the next code, or raise."""
        if isinstance(error, _ABOUT_THE_DEVICE):
            raise error
        failed, *others = self._codes
        if not isinstance(error, CaptureError) and not _smaller_ones_may_do(failed, error):
            others = [code for code in others if code.kernels != failed.kernels]
        cause = error.__cause__ if isinstance(error, CaptureError) else error
        reason = f"{type(cause).__name__}: {cause}".splitlines()[0]
        if others:
            self.failures.append(FailedCode(failed, reason))
            self._codes = others
            return
        if failed.kernels != "torch":
            raise UsageError(
                f"--kernels {failed.kernels} cannot be used: {reason}; use --kernels auto"
            ) from error
        if isinstance(error, CaptureError):
            raise UsageError(f"--capture is not possible: {reason}; leave it out") from error
        raise error


def _smaller_ones_may_do(failed: StepCode, error: Exception) -> bool:
    """Whether the same kernels may run with smaller shapes."""
    return failed.shapes is not None and is_shortage(error)


def _codes(
    kernels: Kernels, capture: Capture, alternatives: Alternatives, shapes: Shapes
) -> list[StepCode]:
    """What to try, in this order."""
    if kernels == "triton":
        codes = [StepCode(kernels, capture, table) for table in (shapes, halved(shapes))]
    else:
        codes = [StepCode(kernels, capture)]
    if alternatives.kernels and kernels != "torch":
        codes.append(StepCode("torch", capture))
    # Triton's kernels that fail captured are not tried once more without.
    if alternatives.capture and codes[-1].is_captured and codes[-1].shapes is None:
        codes.append(replace(codes[-1], capture=without_capture))
    return codes
