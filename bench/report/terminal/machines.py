"""The two numbers of each machine as a table: what the device does, and what the best code does."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from bench.analysis.device_numbers import (
    CAPTION,
    CODE,
    DEVICE,
    NOT_MEASURED,
    MachineNumber,
    MachineNumbers,
    notes,
)
from bench.report.terminal.tables import FittedTable, Section, TableColumn
from bench.text import printable

_NARROWEST = 16
"""Width to which a column can be narrowed, in characters."""


def machine_table(machines: Sequence[MachineNumbers]) -> RenderableType:
    """One row per machine, and the commands for what is not measured."""
    columns = [
        TableColumn(heading, cells, justify="left", narrowest=max(_NARROWEST, len(heading)))
        for heading, cells in (
            ("machine", [_name(machine) for machine in machines]),
            (DEVICE, [_number(machine.device) for machine in machines]),
            (CODE, [_number(machine.code) for machine in machines]),
        )
    ]
    lines = [f"{sentence} {command}".rstrip() for sentence, command in notes(machines)]
    return Group(
        FittedTable(columns, [Section(0, len(machines))], CAPTION),
        *(Text(line, style="dim") for line in lines),
    )


def _name(machine: MachineNumbers) -> Text:
    name = Text(printable(machine.name))
    return name.append("\nby name", style="dim") if machine.known_by_name else name


def _number(number: MachineNumber | None) -> Text:
    if number is None:
        return Text(NOT_MEASURED, style="dim")
    return Text(number.text).append(f"\n{printable(number.how)}", style="dim")
