"""How weights were trained (recipe, epochs, seed, target, machine), as metadata of their file.

Standard library only. Metadata of a file are not trusted: only short plain names, numbers and
versions are accepted, so that they can be shown anywhere.
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
    """How one set of weights was trained."""

    recipe: str
    """Name of the recipe."""
    epochs: int
    """Number of epochs of the schedule; the weights are those after the last epoch."""
    seed: int
    """Seed of weights, order and distortions."""
    target_accuracy: float
    """Accuracy that the training reported as reached or not, as a fraction."""
    device: str
    """Type of the device: cpu, cuda, mps."""
    processes: int
    """Number of ranks that trained together."""
    torch_version: str
    """Version of torch."""

    def metadata(self) -> dict[str, str]:
        """The fields as text, by name."""
        return {name: str(value) for name, value in asdict(self).items()}


def read_provenance(metadata: Mapping[str, str]) -> Provenance | None:
    """Read a file's metadata about its training; None when there are none.

    Raises:
        UsageError: they are incomplete or not valid.
    """
    if not metadata.keys() & _ALLOWED.keys():
        return None
    for name, pattern in _ALLOWED.items():
        if name not in metadata:
            raise UsageError(f"its metadata about the training are incomplete: {name} is missing")
        if not re.fullmatch(pattern, metadata[name]):
            raise UsageError(f"its metadata have no valid {name} of the training")
    return Provenance(
        recipe=metadata["recipe"],
        epochs=int(metadata["epochs"]),
        seed=int(metadata["seed"]),
        target_accuracy=float(metadata["target_accuracy"]),
        device=metadata["device"],
        processes=int(metadata["processes"]),
        torch_version=metadata["torch_version"],
    )
