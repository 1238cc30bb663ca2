"""Saves and loads the network's weights as safetensors files, which contain no code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from mnist_cnn.disk import (
    check_replaceable,
    probe_name,
    read_file,
    refusal_of,
    replace_file,
    with_cleanup,
    write_new_file,
)
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.inference import provenance
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.model import MnistCnn

_LARGEST_BYTES = 16 << 20
"""Most bytes of a file of weights: two hundred times those of the network."""
_PROBE_BYTES = 256 * 1024
"""Bytes of the file that is written to see whether it can be: more than those of the weights."""

_FLOATS = frozenset((torch.float16, torch.bfloat16, torch.float32, torch.float64))
_INTEGERS = frozenset((torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64))
"""Types of numbers that are read: torch can neither check nor convert all of the others."""


def save_weights(
    model: nn.Module, path: Path, metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write every weight and batch-norm statistic, completely or not at all.

    A file already at `path` is replaced only once the new one is complete on the disk.

    Args:
        model: network to save.
        path: file to write.
        metadata: key-value pairs to store in the file, such as how the weights were trained.

    Raises:
        OSError: the disk is full or the folder is not writable; `path` is unchanged.
    """
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    data = _in_order(safetensors.torch.save(tensors, metadata={"format": "pt", **metadata}))
    replace_file(path, data)


def _in_order(data: bytes) -> bytes:
    """The same file with a sorted header: the library writes metadata in a random order.

    Equal weights must give equal files. Source of the layout: the safetensors format, a length of 8
    bytes (little-endian), a JSON header padded with spaces, the tensors.
    """
    end = _header_end(data)
    text = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":"))
    header = text.encode()
    header = header.ljust(-(-len(header) // 8) * 8)  # the tensors stay aligned
    return len(header).to_bytes(8, "little") + header + data[end:]


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")


def check_writable(path: Path) -> None:
    """Check before a long training that `save_weights` can write to `path`, by doing what it will.

    Raises:
        UsageError: it cannot; the message says why.
    """
    try:
        if path.is_dir():
            raise UsageError(f"cannot write {path}: it is a folder; name a file in it")
        check_replaceable(path)
        probe = path.with_name(probe_name(path.name))
        with_cleanup(
            lambda: write_new_file(probe, bytes(_PROBE_BYTES)),
            lambda: probe.unlink(missing_ok=True),
        )
    except OSError as error:
        raise UsageError(f"cannot write {path}: {refusal_of(error)}") from error


def load_weights(path: Path) -> MnistCnn:
    """The network with the weights of that file, on the CPU, ready to evaluate.

    Raises:
        UsageError: the file cannot be read, is not a safetensors file, or has another network's
            weights; the message names the first tensor that differs.
    """
    data = _read(path)
    model = MnistCnn()
    wanted = model.state_dict()
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(data)
    except (SafetensorError, LookupError, RuntimeError, TypeError, ValueError) as error:
        raise UsageError(f"{path} is not a safetensors file: {error}") from error
    check_shapes(path, {name: tuple(value.shape) for name, value in tensors.items()}, wanted)
    for name, value in wanted.items():
        if tensors[name].dtype not in (_FLOATS if value.dtype.is_floating_point else _INTEGERS):
            raise UsageError(f"{path}: tensor {name!r} holds {tensors[name].dtype} numbers")
        if not tensors[name].isfinite().all():
            raise UsageError(f"{path}: tensor {name!r} holds values that are not finite")
        if name.endswith("running_var") and tensors[name].min() < 0:
            raise UsageError(f"{path}: tensor {name!r} holds variances below zero")
    model.load_state_dict(tensors)
    return model.eval()


def load_provenance(path: Path) -> Provenance | None:
    """How the weights of that file were trained; None where it does not say.

    Call it after `load_weights`, which refuses other files.

    Raises:
        UsageError: the metadata are incomplete or not valid.
    """
    data = _read(path)
    metadata = json.loads(data[8 : _header_end(data)]).get("__metadata__") or {}
    try:
        return provenance.read_provenance(metadata)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def _read(path: Path) -> bytes:
    try:
        return read_file(path, _LARGEST_BYTES)
    except OSError as error:
        raise UsageError(f"cannot read {path}: {reason_of(error)}") from error


def check_shapes(
    path: Path, shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor]
) -> None:
    """Refuse tensors other than the network's.

    Args:
        path: the file, for the message.
        shapes: shapes of the tensors in the file, by name.
        wanted: the network's own tensors, in its order.

    Raises:
        UsageError: the message names the first tensor that is missing, extra or of another shape.
    """
    for name, value in wanted.items():
        if name not in shapes:
            raise UsageError(f"{path} holds another network's weights: it has no tensor {name!r}")
        if shapes[name] != tuple(value.shape):
            raise UsageError(
                f"{path} holds another network's weights: tensor {name!r} is of shape "
                f"{_text(shapes[name])}, not {_text(value.shape)}"
            )
    for name in shapes:
        if name not in wanted:
            raise UsageError(
                f"{path} holds another network's weights: it has an extra tensor {name!r}"
            )


def _text(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"
