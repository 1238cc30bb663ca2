"""Reads what `verify` says of a folder, and tampers with records."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.records import store

Values = dict[str, Any]
Tamper = Callable[[Path], None]

CLOSED = "7691c330"
"""A benchmark of three runs of the reference, one process."""


def report_of(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> tuple[int, dict[str, Any], dict[str, list[str]]]:
    """Exit status, the whole report, and the findings of every check that did not pass."""
    capsys.readouterr()
    status = main(["verify", str(path), "--json"])
    report = json.loads(capsys.readouterr().out)
    found = {check["name"]: check["findings"] for check in report["checks"] if check["findings"]}
    return status, report, found


def edit(path: Path, change: Callable[[Values], None]) -> None:
    """Change a record's file, and name it as its new content asks for."""
    values = json.loads(path.read_text(encoding="utf-8"))
    change(values)
    path.write_text(json.dumps(values), encoding="utf-8")
    found = store.read_records([path])
    if found.records:
        path.rename(path.with_name(store.file_name(found.records[0][1])))


def first(change: Callable[[Values], None]) -> Tamper:
    """The same, of a folder's first record."""
    return lambda folder: edit(files(folder)[0], change)


def every(change: Callable[[Values], None]) -> Tamper:
    def tamper(folder: Path) -> None:
        for path in files(folder):
            edit(path, change)

    return tamper


def files(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.json"))


def put(**changes: Any) -> Callable[[Values], None]:
    """Set fields; dots are written as two underscores: ``environment__dirty=True``."""

    def change(values: Values) -> None:
        for name, value in changes.items():
            *path, last = name.split("__")
            place: Any = values
            for step in path:
                place = place[int(step)] if step.isdecimal() else place[step]
            place[last] = value

    return change
