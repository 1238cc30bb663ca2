"""Finds the runs that one argument of `compare` names: by file, folder, label or commit."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records import store
from bench.records.schema import RunRecord
from bench.records.store import UnreadableFile
from bench.text import printable
from mnist_cnn.errors import UsageError

SHORTEST_COMMIT = 7
"""Characters of a commit, or of a benchmark id, that are enough to name runs."""


@dataclass(frozen=True, slots=True)
class RunSet:
    """The runs that one name stands for: one side of a comparison."""

    name: str
    records: tuple[RunRecord, ...]
    """One run or more."""
    problems: tuple[UnreadableFile, ...] = ()
    """Files that could not be read."""
    is_path: bool = False
    """Whether the name is a file's or a folder's."""


def find_runs(argument: str, results_dir: Path) -> RunSet:
    """Find the runs that an argument of the command line names.

    Args:
        argument: a file or a folder; or, of runs in `results_dir`, the label, or the first
            characters of the commit or of the benchmark's id.
        results_dir: the folder to search for labels, commits and ids.

    Raises:
        UsageError: nothing has that name, or nothing in it is a record.
    """
    if not argument.strip():
        raise UsageError("one of the names to compare is empty")
    if _exists(argument):
        contents = store.read_records([Path(argument)])
        if not contents.records:
            raise UsageError(_no_records_message(argument, contents.problems))
        records = tuple(record for _, record in contents.records)
        return RunSet(argument, records, tuple(contents.problems), is_path=True)
    contents = store.read_records([results_dir] if results_dir.exists() else [])
    known = [record for _, record in contents.records]
    for matches in (
        lambda record: record.label == argument,
        lambda record: _begins(record.environment.commit, argument),
        lambda record: _begins(record.benchmark_id, argument),
    ):
        if chosen := tuple(record for record in known if matches(record)):
            return RunSet(argument, chosen, tuple(contents.problems))
    labels = {record.label for record in known if record.label}
    near = difflib.get_close_matches(argument, labels, n=1)
    hint = f" (did you mean {printable(near[0])!r}?)" if near else ""
    raise UsageError(
        f"{printable(argument)!r} is no file or folder, and no label or commit of a run in "
        f"{printable(str(results_dir))}{hint}"
    )


def unreadable_files(*sides: RunSet) -> tuple[str, ...]:
    """A line for each file of these sides that could not be read; second copies are left out."""
    problems = dict.fromkeys(problem for side in sides for problem in side.problems)
    return tuple(
        printable(f"{problem.path}: {problem.reason}")
        for problem in problems
        if not problem.reason.endswith("counted once")
    )


def _exists(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except (OSError, ValueError):  # too long to be a name, or with a zero byte
        return False


def _begins(value: str | None, start: str) -> bool:
    return bool(value) and len(start) >= SHORTEST_COMMIT and str(value).startswith(start.lower())


def _no_records_message(argument: str, problems: Sequence[UnreadableFile]) -> str:
    if problems:
        first = problems[0]
        return (
            f"no run records in {printable(argument)}: {printable(str(first.path))}: {first.reason}"
        )
    return f"no run records in {printable(argument)}: make some with `mnist-bench run`"
