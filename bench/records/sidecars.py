"""Measurements of a machine, kept beside its records under suffixes that no run's record has.

One file per measurement; a new one does not replace an earlier one.
"""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, ClassVar, TypeVar

from pydantic import Field

from bench.records.folders import walk
from bench.records.machine_key import MachineKey
from bench.records.model import Model, Moment, Number, Whole, in_utc, parse_document
from bench.records.schema import RunRecord
from bench.text import printable
from mnist_cnn.disk import leads_outside, read_file, refusal_of, write_new_file
from mnist_cnn.errors import UsageError

_MOST_BYTES = 1024**2
TRAINING_FLOPS = 35_995_008
"""Floating-point operations of one image's training step: `mnist_cnn.summary.training_flops`."""

SESSION_GAP = timedelta(minutes=60)
"""Time without a run after which a later run is of another session. Sessions of one machine and
code 80 minutes apart differed by 3.9 to 6.9 %."""


class Sidecar(Model):
    """A measurement of a machine in a file of its own."""

    suffix: ClassVar[str]
    """Suffix of the file's name."""
    if TYPE_CHECKING:
        # Each kind declares the field itself, at its own place in the file.
        measured_at: Moment

    @property
    def measured_utc(self) -> datetime:
        """When it was measured; a file without a time zone means UTC."""
        return in_utc(self.measured_at)


class NoiseFloor(Sidecar):
    """How far apart the times of equal sides were, at most."""

    suffix = ".noise"

    case: str
    """Name of the set-up, as `bench.analysis.cases.setup_name` writes it."""
    relative: Annotated[Number, Field(ge=0)]
    """Distance of the ratio's interval from one, at its farther end: 0.03 for 3 %."""
    rounds: Annotated[Whole, Field(ge=1)]
    measured_at: Moment
    device_name: str
    commit: str | None
    torch: str
    machine: str | None = None
    """Digest of the machine's key (`bench.records.machine_key`); null in older files."""
    source_sha256: str | None = None
    """SHA-256 of the source code that ran, as in the records; null in older files."""
    started_at: Moment | None = None
    """When the first run started; null in older files."""
    seconds_per_image: Annotated[Number, Field(gt=0)] | None = None
    """Median training time of an image over the runs of both sides, by which sessions are compared;
    null in older files."""

    def is_of_same_code(self, other: NoiseFloor) -> bool:
        """Whether both measured the same code with the same torch; what is unknown is not."""
        if self.source_sha256 is not None and other.source_sha256 is not None:
            same = self.source_sha256 == other.source_sha256
        else:
            same = self.commit is not None and self.commit == other.commit
        return same and self.torch == other.torch


@dataclass(frozen=True, slots=True)
class MachineNoise:
    """How far equal things were apart on one machine: within a session, and over sessions."""

    within: float
    """The last noise floor, as a share: between equal sides that took turns."""
    between: float | None
    """Slowest session's median divided by the fastest's, minus one; None for one session."""
    sessions: int
    """Number of sessions whose medians are known, of the code that was measured last."""
    machine_known: bool
    """Whether the floors are known to be of this machine; else only the device's name is equal."""

    @property
    def relative(self) -> float:
        """The larger of the two, as a share."""
        return max(self.within, self.between or 0.0)

    def __str__(self) -> str:
        """``"noise floor 4.2 % within a session, 6.1 % over 3 sessions"``."""
        text = f"noise floor {100 * self.within:.1f} % within a session"
        if self.between is not None:
            text += f", {100 * self.between:.1f} % over {self.sessions} sessions"
        return text if self.machine_known else f"{text} (of a device with this name)"


class PeakFlops(Sidecar):
    """The highest rate of a device's matrix products."""

    suffix = ".peak"

    device: str
    device_name: str
    precision: str
    threads: Annotated[Whole, Field(ge=1)] | None
    """Number of computing threads on a CPU; null elsewhere."""
    flops_per_second: Annotated[Number, Field(gt=0)]
    """Operations per second; a multiplication and an addition count as two."""
    side: Annotated[Whole, Field(ge=1)]
    """Rows, and columns, of the matrices with the highest rate."""
    measured_at: Moment
    commit: str | None
    torch: str
    machine: str | None = None
    """Digest of the machine's key; null in older files, which know the device's name only."""

    def is_of(self, record: RunRecord) -> bool:
        """Whether it was measured on what the run used: on a CPU, all its threads together.

        A peak of a machine that is not known is none of a run whose machine is known, and the
        other way round.
        """
        setup = record.setup
        threads = setup.threads * setup.processes if setup.device == "cpu" else None
        measured = self.device, self.device_name, self.precision, self.threads, self.machine
        used = setup.device, setup.device_name, setup.multiplies_in, threads
        return measured == (*used, MachineKey.of(record.environment).digest)


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
        write_new_file(path, (sidecar.model_dump_json(indent=2) + "\n").encode())
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(path))}: {refusal_of(error)}") from error
    return path


def find_sidecars(paths: Iterable[Path], suffix: str) -> list[Path]:
    """The files of this suffix in the folders of these files, or in and below these folders."""
    return sorted({file for path in paths for file in _sidecar_files(path, suffix)})


def read_noise_floors(paths: Iterable[Path], *, skip_broken: bool = False) -> list[NoiseFloor]:
    """Every noise floor beside these files, or in and below these folders.

    Args:
        paths: the files or folders.
        skip_broken: whether to leave out a file that cannot be understood.

    Raises:
        UsageError: a file cannot be understood: a gate must not continue without it.
    """
    floors, broken = _read_sidecars(NoiseFloor, paths)
    if broken and not skip_broken:
        raise UsageError(f"{broken[0]} is no noise floor: measure it again with ab")
    return floors


def read_peak_flops(paths: Iterable[Path]) -> tuple[list[PeakFlops], list[Path]]:
    """Every peak beside these files, or in and below these folders.

    Returns:
        The peaks, and the files that cannot be understood.
    """
    return _read_sidecars(PeakFlops, paths)


def find_noise_floor(
    case: str, device_name: str, floors: Iterable[NoiseFloor], machine: str | None = None
) -> float:
    """The noise floor of a case on a machine, as a share; 0 where none was measured.

    The larger of the last floor within a session and of the spread over sessions; see
    `find_machine_noise`.
    """
    noise = find_machine_noise(case, device_name, floors, machine)
    return 0.0 if noise is None else noise.relative


def find_machine_noise(
    case: str, device_name: str, floors: Iterable[NoiseFloor], machine: str | None = None
) -> MachineNoise | None:
    """The noise of a case on a machine; None where none was measured.

    Args:
        case: name of the set-up.
        device_name: name of the device.
        floors: every floor that was measured.
        machine: digest of the machine's key; None where it is not known. Floors of another machine
            do not count. Those of an unknown machine count where there are no others.
    """
    of_name = [f for f in floors if (f.case, f.device_name) == (case, device_name)]
    of_machine = [f for f in of_name if machine is not None and f.machine == machine]
    if machine is not None and not of_machine:
        of_name = [floor for floor in of_name if floor.machine is None]
    ordered = sorted(of_machine or of_name, key=lambda floor: floor.measured_utc)
    if not ordered:
        return None
    last = ordered[-1]
    medians = _session_medians([floor for floor in ordered if floor.is_of_same_code(last)])
    return MachineNoise(
        within=last.relative,
        between=max(medians) / min(medians) - 1 if len(medians) > 1 else None,
        sessions=len(medians),
        machine_known=bool(of_machine),
    )


def _session_medians(floors: Sequence[NoiseFloor]) -> list[float]:
    """Each session's seconds an image; floors less than `SESSION_GAP` apart are of one session."""
    sessions: list[list[NoiseFloor]] = []
    for floor in floors:
        if floor.seconds_per_image is None:
            continue
        begin = in_utc(floor.started_at or floor.measured_at)
        if sessions and begin - sessions[-1][-1].measured_utc <= SESSION_GAP:
            sessions[-1].append(floor)
        else:
            sessions.append([floor])
    return [median(floor.seconds_per_image or 0.0 for floor in session) for session in sessions]


def find_peak_flops(record: RunRecord, peaks: Iterable[PeakFlops]) -> float | None:
    """Operations per second that a run cannot exceed, by the last peak; None without a peak.

    The rate of all processes together: on a CPU of all their threads, elsewhere of one device each.
    """
    of_run = [peak for peak in peaks if peak.is_of(record)]
    if not of_run:
        return None
    last, setup = max(of_run, key=lambda peak: peak.measured_utc), record.setup
    return last.flops_per_second * (1 if setup.device == "cpu" else setup.processes)


def _sidecar_files(path: Path, suffix: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        if not path.is_dir():
            files = path.parent.glob(f"*{suffix}")
            yield from (file for file in files if not leads_outside(file, path.parent))
            return
        for folder, _, names in walk(path):
            files = (folder / name for name in names if name.endswith(suffix))
            yield from (file for file in files if not leads_outside(file, path))


def _read_sidecars(kind: type[_Kind], paths: Iterable[Path]) -> tuple[list[_Kind], list[Path]]:
    """The measurements of one kind, and the files that cannot be understood."""
    sidecars, broken = [], []
    for path in find_sidecars(paths, kind.suffix):
        try:
            sidecars.append(parse_document(kind, read_file(path, _MOST_BYTES)))
        except (OSError, ValueError):
            broken.append(path)
    return sidecars, broken
