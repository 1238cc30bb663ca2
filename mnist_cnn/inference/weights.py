"""The network's weights in a file, in the safetensors format: numbers alone, no code to run."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from mnist_cnn.errors import UsageError
from mnist_cnn.inference import provenance
from mnist_cnn.inference.provenance import Provenance
from mnist_cnn.model import MnistCnn


def save_weights(
    model: nn.Module, path: Path, metadata: Mapping[str, str] = MappingProxyType({})
) -> None:
    """Write every weight and batch-norm statistic, all or nothing.

    A file already at `path` is replaced only once the new one is complete on the disk.

    Args:
        model: what to save.
        path: where to.
        metadata: what else the file shall say, such as how the weights came about.

    Raises:
        OSError: the disk is full or the folder not writable; `path` is as it was before.
    """
    tensors = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    data = _in_order(safetensors.torch.save(tensors, metadata={"format": "pt", **metadata}))
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:  # after a full disk, after Ctrl-C too
        temporary.unlink(missing_ok=True)


def _in_order(data: bytes) -> bytes:
    """The same file with its header sorted: the library puts metadata in a random order.

    Equal weights shall give equal files. Source of the layout: the safetensors format, a length of
    8 bytes (little-endian), a header of JSON padded by spaces, the tensors.
    """
    end = 8 + int.from_bytes(data[:8], "little")
    text = json.dumps(json.loads(data[8:end]), sort_keys=True, separators=(",", ":"))
    header = text.encode()
    header = header.ljust(-(-len(header) // 8) * 8)  # the tensors stay aligned
    return len(header).to_bytes(8, "little") + header + data[end:]


def check_writable(path: Path) -> None:
    """Find out before a long training whether `save_weights` could write there.

    Raises:
        UsageError: it could not, and why.
    """
    if path.is_dir():
        raise UsageError(f"cannot write {path}: it is a folder; name a file in it")
    try:
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}: {path.parent}") from error


def load_weights(path: Path) -> MnistCnn:
    """The network with the weights in that file, on the CPU, ready to evaluate.

    Raises:
        UsageError: it cannot be read, is no safetensors file, or is one of another network; the
            message names the first tensor that differs.
    """
    if not path.is_file():
        raise UsageError(
            f"cannot read {path}: {'it is a folder' if path.is_dir() else 'no such file'}"
        )
    model = MnistCnn()
    wanted = model.state_dict()
    try:
        # Shapes are compared before values are read: a file may be larger than the memory.
        with safe_open(path, framework="pt") as file:
            names: list[str] = file.keys()
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in names}
            check_shapes(path, shapes, wanted)
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in names}
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}") from error
    except SafetensorError as error:
        raise UsageError(f"{path} is not a safetensors file: {error}") from error
    for name, value in wanted.items():
        if tensors[name].dtype.is_floating_point != value.dtype.is_floating_point:
            raise UsageError(f"{path}: tensor {name!r} holds {tensors[name].dtype} numbers")
        if not tensors[name].isfinite().all():
            raise UsageError(f"{path}: tensor {name!r} holds values that are not finite")
    model.load_state_dict(tensors)
    return model.eval()


def load_provenance(path: Path) -> Provenance | None:
    """How the weights in that file came about, where it says so.

    To be called after `load_weights`, which refuses other files.

    Raises:
        UsageError: it says part of it, or what cannot be so.
    """
    with safe_open(path, framework="pt") as file:
        metadata = dict(file.metadata() or {})
    try:
        return provenance.read_provenance(metadata)
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from None


def check_shapes(
    path: Path, shapes: Mapping[str, tuple[int, ...]], wanted: Mapping[str, Tensor]
) -> None:
    """Refuse tensors other than the network's.

    Args:
        path: the file, for the message.
        shapes: of the tensors in it, by name.
        wanted: the network's own tensors, in its order.

    Raises:
        UsageError: names the first tensor that is missing, of another shape, or one too many.
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
                f"{path} holds another network's weights: the tensor {name!r} is one too many"
            )


def _text(shape: Iterable[int]) -> str:
    return "x".join(map(str, shape)) or "a single number"
