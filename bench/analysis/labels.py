"""The name of a set-up in tables and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from bench.records.protocol import PROTOCOL_VERSION
from bench.text import count_of, printable

if TYPE_CHECKING:
    from bench.records.machine_key import MachineKey
    from bench.records.schema import Environment, RunRecord, Setup


def setup_label(
    processes: int | None,
    threads: int | None,
    precision: str,
    kernels: str,
    machines: int = 1,
    parallel_seeds: int = 1,
) -> str:
    """``"2 processes, 1 thread, bf16"``, with the kernels where they are not torch's.

    On several machines ``"4 processes on 2 machines, 1 thread, bf16"``; with several runs at a time
    ``"1 process, 1 thread, bf16, 2 runs at a time"``. A count that is None is left out.
    """
    counts = ((processes, "process"), (threads, "thread"))
    parts = [count_of(number, noun) for number, noun in counts if number is not None]
    if processes is not None and machines > 1:
        parts[0] += f" on {count_of(machines, 'machine')}"
    parts.append(precision if kernels == "torch" else f"{precision} {kernels}")
    if parallel_seeds > 1:
        parts.append(f"{count_of(parallel_seeds, 'run')} at a time")
    return ", ".join(parts)


def label_of_setup(setup: Setup) -> str:
    """The label of a record's set-up."""
    return setup_label(
        setup.processes,
        setup.threads,
        setup.precision,
        setup.computed_by,
        setup.machines,
        setup.parallel_seeds,
    )


def machine_label(device_name: str, key: MachineKey) -> str:
    """The device's name, and the machine's key where it is known: two machines may share a name."""
    return device_name if key.label is None else f"{device_name} ({key.label})"


def label_of_code(environment: Environment, digits: int) -> str | None:
    """``"commit 0123456"``, of an installed copy ``"version 0.1.0"``, else None.

    Args:
        environment: that of a run.
        digits: how much of the commit is shown.
    """
    if environment.commit is not None:
        return f"commit {printable(environment.commit)[:digits]}"
    return None if environment.version is None else f"version {printable(environment.version)}"


def protocol_note(record: RunRecord) -> str:
    """``"protocol 1"`` for a record of another version than the current one; else empty."""
    version = record.protocol.version
    return "" if version == PROTOCOL_VERSION else f"protocol {version}"


def label_of_record(record: RunRecord) -> str:
    """The label of a record's set-up, and what `protocol_note` adds."""
    return ", ".join(filter(None, (label_of_setup(record.setup), protocol_note(record))))


def label_of_row(row: Mapping[str, object]) -> str:
    """The label of a row of `bench.analysis.rows`; what is not known is left out."""
    names = ("processes", "threads", "machines", "parallel_seeds")
    counts = (row[name] for name in names)
    processes, threads, machines, at_once = (c if isinstance(c, int) else None for c in counts)
    by = str(row["precision"]), str(row["kernels"])
    return printable(setup_label(processes, threads, *by, machines or 1, at_once or 1))
