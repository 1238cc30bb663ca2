"""A device that is not there: its tensors are the CPU's, and it is as strict as the strictest.

Inside `strict_device("mps")` tensors can be moved to that device and computed with. As on every
real one, an operation on tensors of two devices is an error. As on MPS and some XPUs, so is
float64.

How: to PyTorch such a tensor has no storage (device "meta", as fake tensors have); what is done
with it is done with the CPU's tensor that it holds.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

_META = torch.device("meta")
_Named = Mapping[str, Any]
_SET_DATA = Tensor.data.__set__  # type: ignore[attr-defined]
_ACROSS_DEVICES = ("_to_copy", "copy_", "_foreach_copy_")


class DeviceTensor(Tensor):
    """A tensor of the device."""

    held: Tensor
    """Its values, on the CPU."""
    strict: StrictDevice

    @staticmethod
    def __new__(cls, values: Tensor, strict: StrictDevice) -> DeviceTensor:
        made: DeviceTensor = Tensor._make_wrapper_subclass(
            cls,
            values.shape,
            strides=values.stride(),
            storage_offset=values.storage_offset(),
            dtype=values.dtype,
            device=_META,
        )
        made.held, made.strict = values, strict
        return made

    @property
    def device(self) -> torch.device:  # type: ignore[override]
        return self.strict.device

    def tolist(self) -> Any:
        return self.held.tolist()

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, function: Any, _: Any, args: Sequence[Any] = (), named: _Named | None = None
    ) -> Any:
        # An autograd thread, where the mode is not in force.
        first = next(t for t in tree_flatten((args, named))[0] if isinstance(t, cls))
        return first.strict.run(function, args, named or {})


class StrictDevice(TorchDispatchMode):
    """What the device does; entered by `strict_device`."""

    def __init__(self, name: str) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.device = torch.device(name)
        self.operators: set[str] = set()
        """Operators that have run on the device, as ``"add.Tensor"``."""

    def __torch_dispatch__(
        self,
        function: Any,
        _: Any,
        args: Sequence[Any] = (),
        named: _Named | None = None,
    ) -> Any:
        named = named or {}
        given = tree_flatten((args, named))[0]
        if named.get("device") == _META or any(isinstance(t, DeviceTensor) for t in given):
            return self.run(function, args, named)
        return function(*args, **named)

    def run(self, function: Any, args: Sequence[Any], named: _Named) -> Any:
        """One operation.

        Raises:
            RuntimeError: its tensors are on two devices.
            TypeError: its result is float64.
        """
        name = function.__name__.partition(".")[0]
        given = tree_flatten((args, named))[0]
        ours = [value for value in given if isinstance(value, DeviceTensor)]
        is_left = any(
            isinstance(value, Tensor) and not isinstance(value, DeviceTensor) and value.dim() > 0
            for value in given
        )
        if ours and is_left and name not in _ACROSS_DEVICES:
            raise RuntimeError(f"{name}: tensors on two devices, {self.device} and cpu")
        target = named.get("device")
        stays = target == _META if target is not None else bool(ours)
        if name == "copy_":
            stays = isinstance(args[0], DeviceTensor)
        self.operators.add(function.__name__.removesuffix(".default"))
        with torch.inference_mode(mode=False), torch.no_grad():
            results = function(*tree_map(_on_cpu, args), **tree_map(_on_cpu, dict(named)))
        changed = {id(tensor.held): tensor for tensor in ours}

        def as_ours(value: Any) -> Any:
            if id(value) in changed:  # in place
                return changed[id(value)]
            if not isinstance(value, Tensor) or not stays:
                return value
            if value.dtype == torch.float64:
                raise TypeError(f"{name}: {self.device} has no float64")
            with torch.inference_mode(mode=False):
                return DeviceTensor(value, self)

        return tree_map(as_ours, results)


@contextmanager
def strict_device(name: str) -> Iterator[StrictDevice]:
    """Inside, the device exists.

    Args:
        name: torch's name of a device type.
    """
    strict = StrictDevice(name)
    with _Names(strict.device), strict:
        yield strict


class _Names(TorchFunctionMode):
    """Has PyTorch take its device without storage where the device is named."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self._names = {str(device), f"{device}:0"}

    def __torch_function__(
        self, function: Any, _: Any, args: Sequence[Any] = (), named: _Named | None = None
    ) -> Any:
        if function == _SET_DATA and isinstance(args[0], DeviceTensor):
            args[0].held = args[1].held
            return None

        def place(value: Any) -> Any:
            is_named = isinstance(value, str | torch.device) and str(value) in self._names
            return _META if is_named else value

        return function(*tree_map(place, args), **tree_map(place, dict(named or {})))


def accelerator_of(strict: StrictDevice) -> Accelerator:
    """Accelerate's own, but for its device."""

    class OnDevice(Accelerator):  # type: ignore[misc]
        @property
        def device(self) -> torch.device:
            return strict.device

    return OnDevice(cpu=True, mixed_precision="no", dynamo_backend="no")


def _on_cpu(value: Any) -> Any:
    if isinstance(value, DeviceTensor):
        return value.held
    return torch.device("cpu") if isinstance(value, torch.device) else value
