"""The noise floor: what two equal sides differ by on this machine, kept beside its records.

Measured by `mnist-bench ab` with equal sides, read by the gate: a difference below it is none. Not
named ``*.json``, for it is no record of a run.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from bench import aside
from bench.records import Model
from mnist_cnn.errors import UsageError

SUFFIX = ".noise"


class NoiseFloor(Model):
    """How far apart the times of equal sides were found to be, at most."""

    case: str
    """The set-up, as `bench.sides.Setting` writes it."""
    relative: Annotated[float, Field(ge=0)]
    """The farther end of the interval of their ratio, from one: 0.03 for 3 %."""
    rounds: Annotated[int, Field(ge=1)]
    measured_at: datetime
    device_name: str
    commit: str | None
    torch: str


def save(floor: NoiseFloor, folder: Path) -> Path:
    """Write it; an earlier one stays, and the last one counts.

    Raises:
        UsageError: the folder cannot be written to.
    """
    return aside.save(floor, floor.measured_at, SUFFIX, folder)


def read(paths: Iterable[Path]) -> list[NoiseFloor]:
    """Every noise floor in these files' folders, or in these folders and those in them.

    Raises:
        UsageError: one is there that cannot be understood: a gate must not go on without it.
    """
    floors = []
    for path in aside.files(paths, SUFFIX):
        try:
            floors.append(NoiseFloor.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise UsageError(f"{path} is no noise floor: measure it again with ab") from error
    return floors


def floor_of(case: str, device_name: str, floors: Iterable[NoiseFloor]) -> float:
    """What was measured last of a case on a device; 0 where nothing was."""
    of_case = [f for f in floors if (f.case, f.device_name) == (case, device_name)]
    return max(of_case, key=lambda f: f.measured_at).relative if of_case else 0.0
