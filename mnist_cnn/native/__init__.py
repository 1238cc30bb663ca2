"""The network's training step and its augmentation as compiled code, for CPUs with AVX512-BF16.

The same mathematics as `mnist_cnn.model` under bfloat16 autocast and `mnist_cnn.augment`, in fewer
passes over memory; see network.hpp. There are two kinds: "avx512" (avx512_network.cpp) multiplies
pairs of vectors, "amx" (amx_network.cpp) matrix tiles, where the processor has those too. The
library is built as the package is installed (hatch_build.py); where there is no compiler, or the
processor lacks the instructions, torch's own operators do the work. Results do not depend on the
number of threads.
"""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from mnist_cnn.augment import SIDE, Distortions
from mnist_cnn.errors import UsageError
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import Kernels, Recipe

LIBRARY = Path(__file__).with_name("libnative.so")

KINDS: tuple[Kernels, ...] = ("amx", "avx512")
"""The kinds of compiled code there are, the fastest first."""

LAYERS = ("stem", "block1", "transition1", "block2", "transition2", "block3", "classifier")
_LAYERS = len(LAYERS)
_MOMENTUM = 0.1
"""torch.nn.BatchNorm2d's default, by which the running statistics follow the batch's."""


def absence(kernels: Kernels = "avx512") -> str | None:
    """Why compiled code of that kind cannot be used on this machine, or None where it can.

    Raises:
        UsageError: the library is older than its source.
    """
    if not LIBRARY.exists():
        return (
            "it was not built: ./scripts/setup needs an x86-64 machine and a C++20 compiler for it"
        )
    if not _library().supported():
        return "this processor has no AVX512-BF16"
    if kernels == "amx" and not _library().tiles_supported():
        return "this processor has no AMX-BF16, or this system does not let it be used"
    return None


def set_threads(threads: int) -> None:
    """From now on let so many threads of this process compute; at first there is one."""
    _library().set_threads(threads)


def take_layer_seconds() -> dict[str, float]:
    """Seconds that compiled training steps have spent in each layer since this was last asked.

    Returns:
        By "stem forward", "stem backward" and so on, the wait for the slowest thread included. With
        tiles nearly all of the stem's way back is in block 1's.
    """
    seconds = (ctypes.c_double * (2 * _LAYERS))()
    _library().take_layer_seconds(seconds)
    ways = [f"{layer} {way}" for layer in LAYERS for way in ("forward", "backward")]
    return dict(zip(ways, seconds, strict=True))


def augments(recipe: Recipe) -> bool:
    """Whether compiled code has this recipe's augmentation."""
    return recipe.interpolation == "bilinear" and recipe.brightness == recipe.contrast == 0


def augment(images: Tensor, chosen: Tensor, distortions: Distortions, recipe: Recipe) -> Tensor:
    """What `mnist_cnn.augment.augment` makes of `images[chosen]`.

    Args:
        images: (M, 28, 28), uint8, contiguous, on the CPU.
        chosen: (N,), int64, contiguous.
        distortions: N rows.
        recipe: one that `augments`.

    Returns:
        (N, 1, 28, 28), float32.
    """
    out = torch.empty(len(chosen), 1, SIDE, SIDE)
    table = distortions.table.contiguous()
    chosen = chosen.contiguous()
    _library().augment(
        images.data_ptr(),
        chosen.data_ptr(),
        len(chosen),
        table.data_ptr(),
        1 / (255 * recipe.pixel_deviation),
        recipe.pixel_mean / recipe.pixel_deviation,
        out.data_ptr(),
    )
    return out


class NativeNetwork(nn.Module):
    """`network`, its parameters and its statistics, computed by compiled code.

    Args:
        network: on the CPU, in float32.
        group: images whose statistics batch norm takes together while training. A batch of more
            is gone through in groups, a smaller one or the last group may have fewer.
        kernels: a kind of compiled code that is not absent.
    """

    def __init__(self, network: MnistCnn, group: int, kernels: Kernels) -> None:
        super().__init__()
        self.network = network
        self._group = group
        self._kernels = kernels
        self._workspaces: list[_Workspace] = []  # for training, a group
        self._evaluation_workspace: _Workspace | None = None

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28), normalised, to logits (N, 10), float32.

        In training mode batch norm's running statistics move, as torch's do. Dropout's probability
        is rounded to a multiple of 1/65536, and its masks are not those torch would draw.
        """
        images = images.float().contiguous()
        if not self.training:
            return self._infer(images)
        layers = _layers(self.network)
        parameters = [
            *(convolution.weight for convolution, _ in layers),
            *(norm.weight for _, norm in layers),
            *(norm.bias for _, norm in layers),
        ]
        statistics = _statistics(layers)
        dropout = _dropout(self.network)
        logits = [
            cast(
                Tensor,
                _TrainingStep.apply(self._workspace(i), part, statistics, dropout, *parameters),
            )
            for i, part in enumerate(images.split(self._group))
        ]
        return logits[0] if len(logits) == 1 else torch.cat(logits)

    def _workspace(self, index: int) -> _Workspace:
        if index == len(self._workspaces):
            self._workspaces.append(_Workspace(self._group, self._kernels))
        return self._workspaces[index]

    def kept(self, layer: int, image: int, channels: int, side: int) -> Tensor:
        """For tests: what a 3x3 layer's dropout kept of an image of the last batch (group 0).

        Returns:
            (channels, side, side), uint8.
        """
        mask = torch.empty(channels, side, side, dtype=torch.uint8)
        _library().network_kept(self._workspaces[0].handle, layer, image, mask.data_ptr())
        return mask

    def _infer(self, images: Tensor) -> Tensor:
        layers = _layers(self.network)
        logits = torch.empty(len(images), 10)
        threads = _library().threads()
        if not self._evaluation_workspace or self._evaluation_workspace.capacity < threads:
            self._evaluation_workspace = _Workspace(threads, self._kernels)
        _library().network_infer(
            self._evaluation_workspace.handle,
            images.data_ptr(),
            len(images),
            _pointers([convolution.weight for convolution, _ in layers]),
            _pointers([norm.weight for _, norm in layers]),
            _pointers([norm.bias for _, norm in layers]),
            *map(_pointers, _statistics(layers)),
            logits.data_ptr(),
        )
        return logits


class _Workspace:
    """What compiled code remembers of a batch between its forward and its backward pass.

    Args:
        capacity: images; for evaluation, threads.
        kernels: the kind of compiled code.
    """

    def __init__(self, capacity: int, kernels: Kernels) -> None:
        self.capacity = capacity
        self.handle = _library().network_new(capacity, int(kernels == "amx"))
        self.batches = 0

    def __del__(self) -> None:
        _library().network_free(self.handle)


class _TrainingStep(torch.autograd.Function):
    """Logits of a batch from images, weights, scales and shifts, and back."""

    @staticmethod
    def forward(
        ctx: Any,
        workspace: _Workspace,
        images: Tensor,
        statistics: tuple[list[Tensor], list[Tensor]],
        dropout: float,
        *parameters: Tensor,
    ) -> Tensor:
        logits = torch.empty(len(images), 10)
        _library().network_train_forward(
            workspace.handle,
            images.data_ptr(),
            len(images),
            *map(_pointers, _by_kind(parameters)),
            *map(_pointers, statistics),
            _MOMENTUM,
            dropout,
            # A source of its own, so that a run's seed decides it.
            int(torch.randint(2**32, ())) if dropout else 0,
            logits.data_ptr(),
        )
        workspace.batches += 1
        ctx.workspace, ctx.batch, ctx.parameters = workspace, workspace.batches, parameters
        return logits

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        assert ctx.batch == ctx.workspace.batches, "another batch has passed since"
        made = tuple(torch.empty_like(parameter) for parameter in ctx.parameters)
        d_logits = gradients[0].float().contiguous()
        _library().network_backward(
            ctx.workspace.handle, d_logits.data_ptr(), *map(_pointers, _by_kind(made))
        )
        return (None, None, None, None, *made)


def _layers(network: MnistCnn) -> list[tuple[nn.Conv2d, nn.BatchNorm2d]]:
    blocks = (
        network.stem,
        network.block1,
        network.transition1,
        network.block2,
        network.transition2,
        network.block3,
    )
    last = (network.classifier, network.classifier_norm)
    return [*((block.conv, block.norm) for block in blocks), last]


def _dropout(network: MnistCnn) -> float:
    layer = network.stem.dropout
    return layer.p if isinstance(layer, nn.Dropout) else 0.0


def _statistics(
    layers: list[tuple[nn.Conv2d, nn.BatchNorm2d]],
) -> tuple[list[Tensor], list[Tensor]]:
    """Running means and variances."""
    return (
        [cast(Tensor, norm.running_mean) for _, norm in layers],
        [cast(Tensor, norm.running_var) for _, norm in layers],
    )


def _by_kind(parameters: Sequence[Tensor]) -> list[Sequence[Tensor]]:
    """Weights, scales, shifts: seven each."""
    return [parameters[start : start + _LAYERS] for start in range(0, 3 * _LAYERS, _LAYERS)]


def _pointers(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """The C array of where contiguous float32 tensors lie; valid as long as they live."""
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    return (ctypes.c_void_p * len(tensors))(*[t.data_ptr() for t in tensors])


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.sources.restype = ctypes.c_char_p
    if library.sources().decode() != source_sum():
        raise UsageError("the compiled code is not that of this source; run ./scripts/setup again")
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    signatures = {
        "network_new": (pointer, [integer, integer]),
        "network_free": (None, [pointer]),
        "network_train_forward": (
            None,
            [pointer, pointer, integer, *[pointer] * 5, real, real, ctypes.c_uint32, pointer],
        ),
        "network_kept": (None, [pointer, integer, integer, pointer]),
        "network_backward": (None, [pointer] * 5),
        "network_infer": (None, [pointer, pointer, integer, *[pointer] * 6]),
        "augment": (None, [pointer, pointer, integer, pointer, real, real, pointer]),
        "take_layer_seconds": (None, [pointer]),
        "set_threads": (None, [integer]),
        "threads": (integer, []),
        "supported": (integer, []),
        "tiles_supported": (integer, []),
    }
    for name, (result, arguments) in signatures.items():
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def source_sum() -> str:
    """SHA-256 over the source files, by name; hatch_build.py computes the same."""
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.[ch]pp")):
        digest.update(path.read_bytes())
    return digest.hexdigest()
