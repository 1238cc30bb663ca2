"""What is measured of a machine and kept beside its records, by names that no run's record has.

A file each; an earlier one stays.
"""

from __future__ import annotations

import contextlib
import re
import secrets
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from bench.records.schema import Model, RunRecord, Setup
from mnist_cnn.errors import UsageError


def write_sidecar(measured: Model, at: datetime, suffix: str, folder: Path) -> Path:
    """Write it.

    Raises:
        UsageError: the folder cannot be written to.
    """
    path = folder / f"{at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(4)}{suffix}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(measured.model_dump_json(indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {path}: {error.strerror}") from error
    return path


def find_sidecars(paths: Iterable[Path], suffix: str) -> list[Path]:
    """Those in these files' folders, or in these folders and those in them."""
    return sorted({file for named in paths for file in _sidecar_files(named, suffix)})


def _sidecar_files(path: Path, suffix: str) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        yield from (path.rglob(f"*{suffix}") if path.is_dir() else path.parent.glob(f"*{suffix}"))


NOISE_SUFFIX = ".noise"


class NoiseFloor(Model):
    """How far apart the times of equal sides were found to be, at most."""

    case: str
    """The set-up, as `bench.analysis.cases.setup_name` writes it."""
    relative: Annotated[float, Field(ge=0)]
    """The farther end of the interval of their ratio, from one: 0.03 for 3 %."""
    rounds: Annotated[int, Field(ge=1)]
    measured_at: datetime
    device_name: str
    commit: str | None
    torch: str


def write_noise_floor(floor: NoiseFloor, folder: Path) -> Path:
    """Write it; an earlier one stays, and the last one counts.

    Raises:
        UsageError: the folder cannot be written to.
    """
    return write_sidecar(floor, floor.measured_at, NOISE_SUFFIX, folder)


def read_noise_floors(paths: Iterable[Path]) -> list[NoiseFloor]:
    """Every noise floor in these files' folders, or in these folders and those in them.

    Raises:
        UsageError: one is there that cannot be understood: a gate must not go on without it.
    """
    floors = []
    for path in find_sidecars(paths, NOISE_SUFFIX):
        try:
            floors.append(NoiseFloor.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError) as error:
            raise UsageError(f"{path} is no noise floor: measure it again with ab") from error
    return floors


def find_noise_floor(case: str, device_name: str, floors: Iterable[NoiseFloor]) -> float:
    """What was measured last of a case on a device; 0 where nothing was."""
    of_case = [f for f in floors if (f.case, f.device_name) == (case, device_name)]
    return max(of_case, key=lambda f: f.measured_at).relative if of_case else 0.0


PEAK_SUFFIX = ".peak"
TRAINING_FLOPS = 35_995_008
"""Floating-point operations of one image's training step: `mnist_cnn.summary.training_flops`."""


class PeakFlops(Model):
    """The best rate of a device's matrix products."""

    device: str
    device_name: str
    precision: str
    threads: Annotated[int, Field(ge=1)] | None
    """Of the products, on a CPU; null elsewhere."""
    flops_per_second: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    """A multiplication and an addition count as two."""
    side: Annotated[int, Field(ge=1)]
    """Of the matrices it was seen with."""
    measured_at: datetime
    commit: str | None
    torch: str


def write_peak_flops(ceiling: PeakFlops, folder: Path) -> Path:
    """Write it; the last one counts.

    Raises:
        UsageError: the folder cannot be written to.
    """
    return write_sidecar(ceiling, ceiling.measured_at, PEAK_SUFFIX, folder)


def read_peak_flops(paths: Iterable[Path]) -> tuple[list[PeakFlops], list[Path]]:
    """Every ceiling beside these records, and the files that cannot be understood."""
    ceilings, broken = [], []
    for path in find_sidecars(paths, PEAK_SUFFIX):
        try:
            ceilings.append(PeakFlops.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            broken.append(path)
    return ceilings, broken


def find_peak_flops(setup: Setup, ceilings: Iterable[PeakFlops]) -> float | None:
    """FLOP/s that a set-up cannot exceed, by what was measured last; None where nothing was.

    Its processes' together: on a CPU of all their threads, elsewhere of as many devices.
    """
    on_cpu = setup.device == "cpu"
    wanted = (
        setup.device,
        setup.device_name,
        setup.precision,
        setup.threads * setup.processes if on_cpu else None,
    )
    fitting = [
        one
        for one in ceilings
        if (one.device, one.device_name, one.precision, one.threads) == wanted
    ]
    if not fitting:
        return None
    last = max(fitting, key=lambda one: one.measured_at)
    return last.flops_per_second * (1 if on_cpu else setup.processes)


SWEEP_SUFFIX = ".sweep"
_SWEEP_FILE = re.compile(rf"(.*?)(?:\.\d+-of-\d+)?{re.escape(SWEEP_SUFFIX)}")
"""A sweep's name, and which part of it."""


class SweepPlanEntry(Model):
    """What a sweep was about to do when it was started, or gone on with."""

    started_at: datetime
    order_seed: int
    shard: str
    runs: list[list[str]]
    """Options of `run`, first to last; without where its record goes and by what name."""


def append_sweep_plan(order: SweepPlanEntry, name: str, ending: str, folder: Path) -> None:
    """Add a line.

    Args:
        order: what it says.
        name: of the sweep.
        ending: of a part of it, as ``".2-of-4"``; else empty.
        folder: where the records go.

    Raises:
        OSError: it cannot be written.
    """
    with (folder / f"{name}{ending}{SWEEP_SUFFIX}").open("a", encoding="utf-8") as file:
        file.write(order.model_dump_json() + "\n")


def read_sweep_plan(path: Path) -> list[SweepPlanEntry]:
    """Its lines.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is something else.
    """
    lines = path.read_bytes().splitlines()
    if not lines:
        raise ValueError("it is empty")
    return [SweepPlanEntry.model_validate_json(line) for line in lines]


def sweep_options_of(record: RunRecord) -> tuple[str, ...] | None:
    """The options that a sweep gave to a run before its label; None for another's."""
    words = record.command[1:]
    return tuple(words[: words.index("--label")]) if "--label" in words else None


def missing_runs(
    path: Path, orders: Sequence[SweepPlanEntry], records: Sequence[RunRecord]
) -> Iterator[str]:
    """The runs in a sweep's file that no record is of, each as its options."""
    named = _SWEEP_FILE.fullmatch(path.name)
    name = named and named[1]
    made = {sweep_options_of(record) for record in records if record.label == name}
    listed = dict.fromkeys(tuple(words) for order in orders for words in order.runs)
    return (" ".join(words) for words in listed if words not in made)
