"""How weights came about, kept with them in their file: recipe, epochs, seed, target, machine.

Standard library only. What a file says is read as a stranger's: only a short plain name, a number
or a version gets through, so that it may be shown anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mnist_cnn.errors import UsageError

_NAME = r"[A-Za-z0-9][A-Za-z0-9 ._+-]{0,63}"
_COUNT = r"[0-9]{1,40}"
_SHARE = r"0\.[0-9]{1,30}|[0-9](\.[0-9]{1,30})?e-[0-9]{1,3}"
_ALLOWED = {
    "recipe": _NAME,
    "epochs": _COUNT,
    "seed": _COUNT,
    "target_accuracy": _SHARE,
    "device": _NAME,
    "processes": _COUNT,
    "torch_version": _NAME,
}


@dataclass(frozen=True, slots=True)
class Provenance:
    """One training."""

    recipe: str
    """The name of the recipe."""
    epochs: int
    """Epochs trained, the schedule stretched over them; the weights are those after the last."""
    seed: int
    """What weights, order and distortions followed from."""
    target_accuracy: float
    """The accuracy looked out for, a fraction."""
    device: str
    """Kind of device trained on: cpu, cuda, mps."""
    processes: int
    """Ranks that trained together."""
    torch_version: str

    def metadata(self) -> dict[str, str]:
        """As text, one entry a field."""
        return {name: str(value) for name, value in asdict(self).items()}


def read_provenance(metadata: Mapping[str, str]) -> Provenance | None:
    """What a file's metadata say of its training; None when they say nothing of it.

    Raises:
        UsageError: they say part of it, or what cannot be so.
    """
    if not metadata.keys() & _ALLOWED.keys():
        return None
    for name, pattern in _ALLOWED.items():
        if name not in metadata:
            raise UsageError(f"its metadata do not say all of its training: {name} is missing")
        if not re.fullmatch(pattern, metadata[name]):
            raise UsageError(f"its metadata give no {name} of its training that could be so")
    return Provenance(
        recipe=metadata["recipe"],
        epochs=int(metadata["epochs"]),
        seed=int(metadata["seed"]),
        target_accuracy=float(metadata["target_accuracy"]),
        device=metadata["device"],
        processes=int(metadata["processes"]),
        torch_version=metadata["torch_version"],
    )
