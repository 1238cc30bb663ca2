"""The file that says which runs a sweep makes, in which order: a line each time it starts."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.records.model import Model, Moment, Whole, parse_document
from bench.records.schema import RunRecord
from mnist_cnn.disk import append_line, read_file

SWEEP_SUFFIX = ".sweep"
_MOST_BYTES = 64 * 1024**2
_FILE_NAME = re.compile(rf"(.*?)(?:\.\d+-of-\d+)?{re.escape(SWEEP_SUFFIX)}")
"""The sweep's name, and which shard of it the file is of."""


class SweepPlanEntry(Model):
    """The runs that a sweep planned when it was started or continued."""

    started_at: Moment
    order_seed: Whole
    """Seed of the random run order."""
    shard: str
    runs: list[list[str]]
    """Options of `run` for each run, in order, without the results folder and the label."""


def append_sweep_plan(entry: SweepPlanEntry, name: str, shard_ending: str, folder: Path) -> None:
    """Add a line to a sweep's file.

    Args:
        entry: what the line says.
        name: the sweep's name.
        shard_ending: for a shard, its ending in the file's name, as ``".2-of-4"``; else empty.
        folder: the folder of the records.

    Raises:
        OSError: the file cannot be written.
    """
    line = entry.model_dump_json() + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    append_line(folder / f"{name}{shard_ending}{SWEEP_SUFFIX}", line.encode())


def read_sweep_plan(path: Path) -> list[SweepPlanEntry]:
    """The lines of a sweep's file, without the rest of one whose writer was killed.

    Raises:
        OSError: the file cannot be read.
        ValueError: a line is not an entry.
    """
    *lines, last = read_file(path, _MOST_BYTES).split(b"\n")
    entries = [parse_document(SweepPlanEntry, line) for line in lines]
    if last or not lines:
        try:
            entries.append(parse_document(SweepPlanEntry, last))
        except ValueError:
            if not entries:
                raise
    return entries


def sweep_options_of(record: RunRecord) -> tuple[str, ...] | None:
    """The options that a sweep gave to a run, before the label; None for a run of no sweep."""
    words = record.command[1:]
    return tuple(words[: words.index("--label")]) if "--label" in words else None


def missing_runs(
    path: Path, entries: Sequence[SweepPlanEntry], records: Sequence[RunRecord]
) -> Iterator[str]:
    """The planned runs that have no record, each as its options.

    Args:
        path: the sweep's file, whose name has the sweep's.
        entries: its lines.
        records: the records beside it.
    """
    matched = _FILE_NAME.fullmatch(path.name)
    name = matched and matched[1]
    made = {sweep_options_of(record) for record in records if record.label == name}
    planned = dict.fromkeys(tuple(words) for entry in entries for words in entry.runs)
    return (" ".join(words) for words in planned if words not in made)
