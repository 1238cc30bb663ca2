"""The network's training step and its augmentation as compiled code, for CPUs with AVX512-BF16.

The same mathematics as `mnist_cnn.model` under bfloat16 autocast and `mnist_cnn.augment`, in fewer
passes over memory; see step.hpp and network.hpp. There are two kinds: "avx512"
(avx512_network.cpp) multiplies pairs of vectors, "amx" (amx_network.cpp) matrix tiles, where the
processor has those too. The library is built as the package is installed (hatch_build.py); where
there is no compiler, or the processor lacks the instructions, torch's own operators do the work.
Results do not depend on the number of threads.
"""

from __future__ import annotations

import ctypes
import hashlib
from functools import cache
from pathlib import Path
from typing import cast

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
        return "this processor has no AVX512-BF16, or not AVX512-VBMI beside it"
    if kernels == "amx" and not _library().tiles_supported():
        return "this processor has no AMX-BF16, or this system does not let it be used"
    return None


def set_threads(threads: int) -> None:
    """From now on let so many threads of this process compute; at first there is one."""
    _library().set_threads(threads)


def take_layer_seconds() -> dict[str, float]:
    """Seconds that compiled training steps have spent in each layer since this was last asked.

    Returns:
        By "stem forward", "stem backward" and so on; where each thread is in a layer of its own,
        each one's seconds divided by their number. With tiles nearly all of the stem's way back is
        in block 1's.
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
    """`network` as compiled code infers with it.

    Args:
        network: on the CPU, in float32.
        kernels: a kind of compiled code that is not absent.
    """

    def __init__(self, network: MnistCnn, kernels: Kernels) -> None:
        super().__init__()
        self.network = network
        self._kernels = kernels
        self._workspace: _Workspace | None = None

    def forward(self, images: Tensor) -> Tensor:
        """(N, 1, 28, 28), normalised, to logits (N, 10), float32; by the running statistics."""
        images = images.float().contiguous()
        logits = torch.empty(len(images), 10)
        threads = _library().threads()
        if not self._workspace or self._workspace.capacity < threads:
            self._workspace = _Workspace(threads, self._kernels)
        _library().step_infer(
            self._workspace.handle,
            _tensors(self.network, gradients=None),
            images.data_ptr(),
            len(images),
            logits.data_ptr(),
        )
        return logits


class NativeStep:
    """Losses and gradients of `network` by compiled code.

    From now on the network's parameters are views of one, so that an optimizer has one to step.

    Args:
        network: on the CPU, in float32.
        group: images whose statistics batch norm takes together. A batch of more is gone through in
            groups, a smaller one or the last group may have fewer.
        kernels: a kind of compiled code that is not absent.
        label_smoothing: share of a label's mass spread over all ten classes in the loss.
    """

    def __init__(
        self, network: MnistCnn, group: int, kernels: Kernels, label_smoothing: float = 0.0
    ) -> None:
        self.parameters = _joined(network)
        """All parameters of the network, (17506,)."""
        self.gradient = torch.empty_like(self.parameters, requires_grad=False)
        """Of `parameters`, of the last batch; the next one is written over it."""
        self._label_smoothing = label_smoothing
        self._dropout = _dropout(network)
        self._workspace = _Workspace(group, kernels)
        self._network = network  # whose tensors must live as long as their addresses are kept
        self._tensors = _tensors(network, _views(self.gradient, network))

    def __call__(self, images: Tensor, labels: Tensor, weight: float = 1.0) -> Tensor:
        """Leave the gradient of the batch's mean loss times `weight` in `gradient`.

        Batch norm's running statistics move, as torch's do. Dropout's probability is rounded to a
        multiple of 1/65536, and its masks are not those torch would draw.

        Args:
            images: (N, 1, 28, 28), normalised.
            labels: (N,), int64, 0 to 9.
            weight: of the loss.

        Returns:
            The cross-entropy of each image, (N,), float32.
        """
        images, labels = images.float().contiguous(), labels.contiguous()
        losses = torch.empty(len(images))
        _library().step_train(
            self._workspace.handle,
            self._tensors,
            images.data_ptr(),
            labels.data_ptr(),
            len(images),
            self._label_smoothing,
            weight,
            self._dropout,
            # A source of its own, so that a run's seed decides it.
            int(torch.randint(2**32, ())) if self._dropout else 0,
            _MOMENTUM,
            losses.data_ptr(),
        )
        return losses

    def kept(self, layer: int, image: int, channels: int, side: int) -> Tensor:
        """For tests: what a 3x3 layer's dropout kept of an image of the last batch, of one group.

        Returns:
            (channels, side, side), uint8.
        """
        mask = torch.empty(channels, side, side, dtype=torch.uint8)
        _library().step_kept(self._workspace.handle, layer, image, mask.data_ptr())
        return mask


class NativeSgd(torch.optim.Optimizer):
    """torch.optim.SGD with Nesterov momentum, for one parameter.

    torch's own takes ten times as long: not for its arithmetic, but for the code around it, which
    a training step drives out of the cache each time.

    Args:
        parameter: contiguous, float32, on the CPU.
        lr: learning rate.
        momentum: and
        weight_decay: as there.
    """

    # Not as torch wraps it, which imports its compiler, for a second: see mnist_cnn.optim.
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
        # torch's first velocity is the first gradient: as if all before had been zero.
        self.state[parameter]["momentum_buffer"] = self._velocity = torch.zeros_like(
            parameter, requires_grad=False
        )

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update by the parameter's gradient."""
        del closure
        group, gradient = self.param_groups[0], self._parameter.grad
        assert gradient is not None
        assert gradient.is_contiguous()
        _library().sgd(
            self._parameter.data_ptr(),
            self._velocity.data_ptr(),
            gradient.data_ptr(),
            len(gradient),
            group["lr"],
            group["momentum"],
            group["weight_decay"],
        )

    # torch.optim.Optimizer then does not wrap it in what it needs for its profiler and hooks, which
    # takes three times as long as the step.
    step.hooked = True  # type: ignore[attr-defined]

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradient."""
        del set_to_none
        self._parameter.grad = None


class _Workspace:
    """What compiled code remembers of a batch between its forward and its backward pass.

    Args:
        capacity: images of a group; to infer, threads.
        kernels: the kind of compiled code.
    """

    def __init__(self, capacity: int, kernels: Kernels) -> None:
        self.capacity = capacity
        self.handle = _library().step_new(capacity, int(kernels == "amx"))

    def __del__(self) -> None:
        _library().step_free(self.handle)


def _joined(network: MnistCnn) -> nn.Parameter:
    """One parameter of which those of `network` are views from now on."""
    joined = nn.Parameter(torch.cat([p.detach().flatten() for p in network.parameters()]))
    for parameter, view in zip(network.parameters(), _views(joined.detach(), network), strict=True):
        parameter.data = view
    return joined


def _views(joined: Tensor, network: MnistCnn) -> list[Tensor]:
    """The parts of `joined` that belong to each of the network's parameters, in their shapes."""
    parameters = list(network.parameters())
    parts = joined.split([parameter.numel() for parameter in parameters])
    return [part.view(p.shape) for part, p in zip(parts, parameters, strict=True)]


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


def _tensors(network: MnistCnn, gradients: list[Tensor] | None) -> ctypes.Array[ctypes.c_void_p]:
    """Where compiled code finds a network (network.cpp's Tensors); valid as long as they live.

    Args:
        network: on the CPU, in float32.
        gradients: of its parameters, in their order; None where none are wanted.
    """
    layers = _layers(network)
    of_parameter: dict[int, Tensor] = {}
    if gradients is not None:
        of_parameter = dict(zip(map(id, network.parameters()), gradients, strict=True))
    parameters: list[Tensor] = [
        *(convolution.weight for convolution, _ in layers),
        *(norm.weight for _, norm in layers),
        *(norm.bias for _, norm in layers),
    ]
    statistics = [cast(Tensor, norm.running_mean) for _, norm in layers]
    statistics += [cast(Tensor, norm.running_var) for _, norm in layers]
    tensors = [*parameters, *statistics, *(of_parameter[id(p)] for p in parameters if of_parameter)]
    assert all(t.dtype == torch.float32 and t.is_contiguous() for t in tensors)
    addresses = [t.data_ptr() for t in tensors] + [None] * (8 * _LAYERS - len(tensors))
    return (ctypes.c_void_p * (8 * _LAYERS))(*addresses)


@cache
def _library() -> ctypes.CDLL:
    library = ctypes.CDLL(str(LIBRARY))
    library.sources.restype = ctypes.c_char_p
    if library.sources().decode() != source_sum():
        raise UsageError("the compiled code is not that of this source; run ./scripts/setup again")
    pointer, integer, real = ctypes.c_void_p, ctypes.c_int, ctypes.c_float
    signatures = {
        "step_new": (pointer, [integer, integer]),
        "step_free": (None, [pointer]),
        "step_train": (
            None,
            [*[pointer] * 4, integer, real, real, real, ctypes.c_uint32, real, pointer],
        ),
        "step_infer": (None, [pointer, pointer, pointer, integer, pointer]),
        "step_kept": (None, [pointer, integer, integer, pointer]),
        "sgd": (None, [pointer, pointer, pointer, integer, real, real, real]),
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
