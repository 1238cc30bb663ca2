"""In which order a sweep made its runs: ``NAME.sweep`` beside the records, a line each time."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

from bench.records import Model, RunRecord

SUFFIX = ".sweep"
_FILE = re.compile(rf"(.*?)(?:\.\d+-of-\d+)?{re.escape(SUFFIX)}")
"""A sweep's name, and which part of it."""


class Order(Model):
    """What a sweep was about to do when it was started, or gone on with."""

    started_at: datetime
    order_seed: int
    shard: str
    runs: list[list[str]]
    """Options of `run`, first to last; without where its record goes and by what name."""


def keep(order: Order, name: str, ending: str, folder: Path) -> None:
    """Add a line.

    Args:
        order: what it says.
        name: of the sweep.
        ending: of a part of it, as ``".2-of-4"``; else empty.
        folder: where the records go.

    Raises:
        OSError: it cannot be written.
    """
    with (folder / f"{name}{ending}{SUFFIX}").open("a", encoding="utf-8") as file:
        file.write(order.model_dump_json() + "\n")


def read(path: Path) -> list[Order]:
    """Its lines.

    Raises:
        OSError: it cannot be read.
        ValueError: a line is something else.
    """
    lines = path.read_bytes().splitlines()
    if not lines:
        raise ValueError("it is empty")
    return [Order.model_validate_json(line) for line in lines]


def options_of(record: RunRecord) -> tuple[str, ...] | None:
    """The options that a sweep gave to a run before its label; None for another's."""
    words = record.command[1:]
    return tuple(words[: words.index("--label")]) if "--label" in words else None


def unmade(path: Path, orders: Sequence[Order], records: Sequence[RunRecord]) -> Iterator[str]:
    """The runs in a sweep's file that no record is of, each as its options."""
    named = _FILE.fullmatch(path.name)
    name = named and named[1]
    made = {options_of(record) for record in records if record.label == name}
    listed = dict.fromkeys(tuple(words) for order in orders for words in order.runs)
    return (" ".join(words) for words in listed if words not in made)
