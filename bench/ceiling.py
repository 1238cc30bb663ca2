"""How fast a machine multiplies matrices, kept beside its records: what training is held against.

Measured by `mnist-bench env --peak --save` (`bench.peak`), read by the report.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Annotated

from pydantic import Field, ValidationError

from bench import aside
from bench.records import Model, Setup

SUFFIX = ".peak"
TRAINING_FLOPS = 35_995_008
"""Floating-point operations of one image's training step: `mnist_cnn.summary.training_flops`."""


class Ceiling(Model):
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


def save(ceiling: Ceiling, folder: Path) -> Path:
    """Write it; the last one counts.

    Raises:
        UsageError: the folder cannot be written to.
    """
    return aside.save(ceiling, ceiling.measured_at, SUFFIX, folder)


def read(paths: Iterable[Path]) -> tuple[list[Ceiling], list[Path]]:
    """Every ceiling beside these records, and the files that cannot be understood."""
    ceilings, broken = [], []
    for path in aside.files(paths, SUFFIX):
        try:
            ceilings.append(Ceiling.model_validate_json(path.read_bytes()))
        except (OSError, ValidationError):
            broken.append(path)
    return ceilings, broken


def of_setup(setup: Setup, ceilings: Iterable[Ceiling]) -> float | None:
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
