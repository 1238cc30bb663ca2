"""A training's state in the bytes of a file of torch's, which cannot take more memory than it has.

torch reads what a stranger may have written: compressed members that expand a thousandfold,
storages without content, tensors that repeat one number. None of these is in a file that this
project writes, so that each is refused before or when torch has read it.
"""

from __future__ import annotations

import io
import pickletools
import re
import zipfile
from collections.abc import Mapping
from typing import Any, cast
from zipfile import ZipFile

import torch
from torch import Tensor

_NAMES = re.compile(
    r"torch\._utils _rebuild_tensor_v2|torch [A-Za-z0-9]+Storage|collections OrderedDict"
)
"""What the pickle of a state may name: torch's own list has `bytearray`, which takes a length."""
_LARGEST_PICKLE_BYTES = 1 << 20
"""Most bytes of the pickle, whose objects are many times as large; it has about 15,000."""


def pack(state: Mapping[str, Any]) -> bytes:
    """The bytes of a state of tensors, numbers, text, lists and dictionaries."""
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)
    return buffer.getvalue()


def unpack(content: bytes) -> Mapping[str, Any]:
    """The state in the bytes that `pack` has made, with its tensors on the CPU.

    Raises:
        ValueError: it holds what `pack` does not write.
        Exception: whatever torch raises for damaged bytes.
    """
    checked = io.BytesIO(_checked_copy(content))
    state = torch.load(checked, map_location="cpu", weights_only=True)
    _refuse_repeated_numbers(state)
    return cast("Mapping[str, Any]", state)


def _checked_copy(content: bytes) -> bytes:
    """The same members in a zip file written here: torch finds them where they were checked."""
    copy = io.BytesIO()
    with ZipFile(io.BytesIO(content)) as source, ZipFile(copy, "w") as target:
        members = source.infolist()
        if any(member.compress_type != zipfile.ZIP_STORED for member in members):
            raise ValueError("it is compressed, which no checkpoint is")
        # Members may share their bytes.
        if sum(member.file_size for member in members) > len(content):
            raise ValueError(f"it holds more than its {len(content):,} bytes")
        for member in members:
            data = source.read(member)
            if member.filename.endswith("/data.pkl"):
                _check_pickle(data)
            target.writestr(member.filename, data)
    return copy.getvalue()


def _check_pickle(content: bytes) -> None:
    """Refuse a pickle that makes other objects than a state has."""
    if len(content) > _LARGEST_PICKLE_BYTES:
        raise ValueError(f"its list of tensors has more than {_LARGEST_PICKLE_BYTES:,} bytes")
    for operation, argument, _ in pickletools.genops(content):
        if operation.name == "GLOBAL" and not _NAMES.fullmatch(str(argument)):
            raise ValueError(f"it names {str(argument)[:80]!r}, which no checkpoint does")


def _refuse_repeated_numbers(state: object) -> None:
    """Refuse a tensor with more numbers than are stored: a copy would have them all."""
    waiting, known = [state], {id(state)}
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            if value.numel() * value.element_size() > value.untyped_storage().nbytes():
                raise ValueError("it has a tensor of more numbers than are stored")
            continue
        if isinstance(value, Mapping):
            values = list(value.values())
        elif isinstance(value, list | tuple | set):
            values = list(value)
        else:
            continue
        # Each once: lists may hold each other.
        waiting += [inner for inner in values if id(inner) not in known]
        known.update(map(id, values))
