"""Two numbers a machine: what the device does, and what the best code makes of it.

Both are training images a second of the reference recipe, whatever the number of epochs. The
*device number* is that of torch's operators, which every device has. The *code number* is that of
the fastest kernels, which somebody may have written for this device alone. docs/protocol.md says
why both are needed.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.protocol_rules import table_protocol
from bench.analysis.result_warnings import ranked
from bench.analysis.step_code import uses_torch
from bench.analysis.units import Unit, format_summary
from bench.records.machine_key import MachineKey
from bench.records.protocol import PROTOCOL_VERSION
from bench.records.schema import RunRecord
from bench.text import count_of
from mnist_cnn.recipe import FREE_IN_CLOSED, REFERENCE

DEVICE_COMMAND = (
    "mnist-bench run --recipe reference --pipeline resident --kernels torch --epochs 1 --runs 3"
)
"""Command that measures a machine's device number."""
CODE_COMMAND = "mnist-bench run --recipe reference --pipeline resident --precision bf16"
"""Command that measures a machine's code number: the fastest kernels that it has."""
DEVICE = "device number"
CODE = "code number"
"""Headings of the two numbers."""
NOT_MEASURED = "not measured"
"""Shown where a machine has not one of the numbers; `notes` has the command."""
CAPTION = (
    "Training images a second of the reference recipe. Device number: with torch's operators, "
    "which every device has, so these compare devices. Code number: with the fastest kernels, "
    "which somebody may have written for this device alone, so these compare code and device "
    "together."
)
_BY_NAME = (
    "By name: records before version 8 hold no more of the machine, so its numbers may be of "
    "several machines of that name."
)
_NOT_THE_WORK = {"name", "epochs", "evaluate_from_epoch", *FREE_IN_CLOSED}
"""Fields of a recipe that do not change what a step of the reference recipe computes."""

Source = tuple[str, Benchmark]
"""A benchmark, and the name by which a reader finds it; may be empty."""


@dataclass(frozen=True, slots=True)
class MachineNumber:
    """One of a machine's two numbers."""

    source: str
    """Name by which a reader finds the benchmark; may be empty."""
    benchmark: Benchmark
    """The benchmark that has the number."""

    @property
    def images_per_second(self) -> float:
        """The median over the completed runs."""
        return self.benchmark.summary("images_per_second").median or 0.0

    @property
    def text(self) -> str:
        """The median, with its interval where there is one: ``"1,876"``."""
        return format_summary(self.benchmark.summary("images_per_second"), Unit.RATE)

    @property
    def how(self) -> str:
        """The set-up, torch's operators named too: ``"bf16 torch, 1 process, 2 threads"``."""
        setup = self.benchmark.records[0].setup
        counts = count_of(setup.processes, "process"), count_of(setup.threads, "thread")
        return ", ".join((f"{setup.precision} {setup.computed_by}", *counts))

    @property
    def uses_torch(self) -> bool:
        """Whether torch's operators computed it."""
        return uses_torch(self.benchmark.records[0])


@dataclass(frozen=True, slots=True)
class MachineNumbers:
    """The two numbers of a machine."""

    name: str
    """The device's name, and the machine's key where it is known."""
    known_by_name: bool
    """Whether only the machine's name is known: it may stand for several machines."""
    device: MachineNumber | None
    """Of torch's operators; None where they were not measured."""
    code: MachineNumber | None
    """Of the fastest kernels, torch's included; None where the recipe was not measured."""

    @property
    def no_other_code(self) -> bool:
        """Whether the code number is that of torch's operators."""
        return self.code is not None and self.code.uses_torch


def machine_numbers(
    sources: Iterable[Source], shown: Iterable[Benchmark] | None = None
) -> list[MachineNumbers]:
    """The two numbers of each machine, those with the highest device number first.

    Args:
        sources: all benchmarks that there are.
        shown: benchmarks whose machines are wanted; None for all.
    """
    by_machine: dict[_Machine, list[MachineNumber]] = {}
    for source, benchmark in sources:
        of_machine = by_machine.setdefault(_machine(benchmark), [])
        if _has_number(benchmark):
            of_machine.append(MachineNumber(source, benchmark))
    wanted = by_machine if shown is None else dict.fromkeys(map(_machine, shown))
    numbers = [_numbers(machine, by_machine[machine]) for machine in wanted]
    return sorted(numbers, key=_order)


def notes(numbers: Iterable[MachineNumbers]) -> list[tuple[str, str]]:
    """What a reader must know of these numbers: sentences, each with a command or an empty text."""
    machines = list(numbers)
    lines = []
    if any(machine.device is None for machine in machines):
        lines.append((f"A device number that is {NOT_MEASURED}:", DEVICE_COMMAND))
    if any(machine.code is None or machine.no_other_code for machine in machines):
        lines.append((f"A code number that is {NOT_MEASURED}, or torch's own:", CODE_COMMAND))
    if any(machine.known_by_name for machine in machines):
        lines.append((_BY_NAME, ""))
    return lines


_Machine = tuple[str, str, MachineKey]


def _machine(benchmark: Benchmark) -> _Machine:
    record = benchmark.records[0]
    return record.setup.device, record.setup.device_name, MachineKey.of(record.environment)


def _numbers(machine: _Machine, measured: list[MachineNumber]) -> MachineNumbers:
    _, device_name, key = machine
    return MachineNumbers(
        name=labels.machine_label(device_name, key),
        known_by_name=not key.is_identified,
        device=_fastest([number for number in measured if number.uses_torch]),
        code=_fastest(measured),
    )


def _fastest(numbers: list[MachineNumber]) -> MachineNumber | None:
    return max(numbers, key=lambda number: number.images_per_second, default=None)


def _order(numbers: MachineNumbers) -> tuple[float, float, str]:
    device, code = (
        -math.inf if number is None else number.images_per_second
        for number in (numbers.device, numbers.code)
    )
    return -device, -code, numbers.name


def _has_number(benchmark: Benchmark) -> bool:
    """Whether a benchmark measured the reference recipe on one machine that it had to itself."""
    record = benchmark.records[0]
    return (
        record.setup.machines == record.setup.parallel_seeds == 1
        and table_protocol(record) == PROTOCOL_VERSION
        and _trains_reference(record)
        and ranked(benchmark.records)
        and benchmark.summary("images_per_second").median is not None
    )


def _trains_reference(record: RunRecord) -> bool:
    """Whether a step computes what one of the reference recipe does.

    A field that an older record does not have is as it was before the field was there.
    """
    recipe = record.recipe
    return recipe.get("name") == REFERENCE.name and all(
        recipe.get(field, value) == value
        for field, value in REFERENCE.values().items()
        if field not in _NOT_THE_WORK
    )
