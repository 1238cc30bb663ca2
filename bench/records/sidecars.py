"""Measurements of a machine, kept beside its records under suffixes that no run's record has.

One file per measurement; a new one does not replace an earlier one.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from pydantic import Field, ValidationError

from bench.records.disk import read_regular_file
from bench.records.model import Model
from bench.records.setup import Setup
from mnist_cnn.errors import UsageError

_MOST_BYTES = 1024**2
TRAINING_FLOPS = 35_995_008
"""Floating-point operations of one image's training step: `mnist_cnn.summary.training_flops`."""


class Sidecar(Model):
    """A measurement of a machine in a file of its own."""

    suffix: ClassVar[str]
    """Suffix of the file's name."""
    if TYPE_CHECKING:
        # Each kind declares the field itself, at its own place in the file.
        measured_at: datetime


class NoiseFloor(Sidecar):
    """How far apart the times of equal sides were, at most."""

    suffix = ".noise"

    case: str
    """Name of the set-up, as `bench.analysis.cases.setup_name` writes it."""
    relative: Annotated[float, Field(ge=0)]
    """Distance of the ratio's interval from one, at its farther end: 0.03 for 3 %."""
    rounds: Annotated[int, Field(ge=1)]
    measured_at: datetime
    device_name: str
    commit: str | None
    torch: str


class PeakFlops(Sidecar):
    """The highest rate of a device's matrix products."""

    suffix = ".peak"

    device: str
    device_name: str
    precision: str
    threads: Annotated[int, Field(ge=1)] | None
    """Number of computing threads on a CPU; null elsewhere."""
    flops_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """Operations per second; a multiplication and an addition count as two."""
    side: Annotated[int, Field(ge=1)]
    """Rows, and columns, of the matrices with the highest rate."""
    measured_at: datetime
    commit: str | None
    torch: str

    def is_of(self, setup: Setup) -> bool:
        """Whether it was measured on what the set-up uses: on a CPU, all its threads together."""
        threads = setup.threads * setup.processes if setup.device == "cpu" else None
        measured = self.device, self.device_name, self.precision, self.threads
        return measured == (setup.device, setup.device_name, setup.precision, threads)


_Kind = TypeVar("_Kind", bound=Sidecar)


def write_sidecar(sidecar: Sidecar, folder: Path) -> Path:
    """Write a measurement to a new file; of several, the last one counts.

    Raises:
        UsageError: the folder cannot be written to.
    """
    started = f"{sidecar.measured_at:%Y%m%dT%H%M%SZ}"
    path = folder / f"{started}-{secrets.token_hex(4)}{sidecar.suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(sidecar.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path


def find_sidecars(paths: Iterable[Path], suffix: str) -> list[Path]:
    """The files of this suffix in the folders of these files, or in and below these folders."""
    return sorted({file for path in paths for file in _sidecar_files(path, suffix)})


def read_noise_floors(paths: Iterable[Path]) -> list[NoiseFloor]:
    """Every noise floor beside these files, or in and below these folders.

    Raises:
        UsageError: a file cannot be understood: a gate must not continue without it.
    """
    floors, broken = _read_sidecars(NoiseFloor, paths)
    if broken:
        raise UsageError(f"{broken[0]} is no noise floor: measure it again with ab")
    return floors


def read_peak_flops(paths: Iterable[Path]) -> tuple[list[PeakFlops], list[Path]]:
    """Every peak beside these files, or in and below these folders.

    Returns:
        The peaks, and the files that cannot be understood.
    """
    return _read_sidecars(PeakFlops, paths)


def find_noise_floor(case: str, device_name: str, floors: Iterable[NoiseFloor]) -> float:
    """The last noise floor of a case on a device, as a share; 0 where none was measured."""
    of_case = [f for f in floors if (f.case, f.device_name) == (case, device_name)]
    return max(of_case, key=lambda floor: floor.measured_at).relative if of_case else 0.0


def find_peak_flops(setup: Setup, peaks: Iterable[PeakFlops]) -> float | None:
    """Operations per second that a set-up cannot exceed, by the last peak; None without a peak.

    The rate of all processes together: on a CPU of all their threads, elsewhere of one device each.
    """
    of_setup = [peak for peak in peaks if peak.is_of(setup)]
    if not of_setup:
        return None
    last = max(of_setup, key=lambda peak: peak.measured_at)
    return last.flops_per_second * (1 if setup.device == "cpu" else setup.processes)


def _sidecar_files(path: Path, suffix: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path.rglob(f"*{suffix}") if path.is_dir() else path.parent.glob(f"*{suffix}"))


def _read_sidecars(kind: type[_Kind], paths: Iterable[Path]) -> tuple[list[_Kind], list[Path]]:
    """The measurements of one kind, and the files that cannot be understood."""
    sidecars, broken = [], []
    for path in find_sidecars(paths, kind.suffix):
        try:
            sidecars.append(kind.model_validate_json(read_regular_file(path, _MOST_BYTES)))
        except (OSError, ValidationError):
            broken.append(path)
    return sidecars, broken
