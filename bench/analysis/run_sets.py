"""Finds the runs that one argument of `compare` names: by file, folder, label or commit."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench.records import sidecars, store
from bench.records.schema import RunRecord
from bench.records.sidecars import NoiseFloor
from bench.records.store import UnreadableFile
from bench.text import printable
from mnist_cnn.errors import UsageError

SHORTEST_COMMIT = 7
"""Characters of a commit, or of a benchmark id, that are enough to name runs."""
COMMIT_MARK = "@"
"""Between a name and a commit: only the runs of that name which are of that commit."""
_STAMP = re.compile(r" \d{8}T\d{6}Z")
"""What `ab` adds to the labels of an experiment: when it began."""


class NoRuns(UsageError):
    """Nothing has the name, or the folder holds nothing: there may be no baseline yet."""


@dataclass(frozen=True, slots=True)
class RunSet:
    """The runs that one name stands for: one side of a comparison."""

    name: str
    records: tuple[RunRecord, ...]
    """One run or more."""
    problems: tuple[UnreadableFile, ...] = ()
    """Files that could not be read."""
    path: Path | None = None
    """The file or the folder that the name is; None for a label, a commit or an id."""


def find_runs(argument: str, folders: Sequence[Path]) -> RunSet:
    """Find the runs that an argument of the command line names.

    Args:
        argument: a file or a folder; or, of runs in `folders`, the label (of runs of `ab` also
            without its time), or the first characters of the commit or of the benchmark's id; any
            of them also as NAME@COMMIT.
        folders: those to search for labels, commits and ids; they may be absent.

    Raises:
        NoRuns: nothing has that name, and no file is unreadable; or the folder is empty.
        UsageError: nothing that can be read has that name, or nothing in it is a record.
    """
    if not argument.strip():
        raise UsageError("one of the names to compare is empty")
    if _exists(argument):
        contents = store.read_records([Path(argument)])
        if not contents.records:
            kind = UsageError if contents.problems else NoRuns
            raise kind(_no_records_message(argument, contents.problems))
        records = tuple(record for _, record in contents.records)
        return RunSet(argument, records, tuple(contents.problems), Path(argument))
    contents = store.read_records(folder for folder in folders if folder.exists())
    known = [record for _, record in contents.records]
    if chosen := _named(argument, known):
        return RunSet(argument, chosen, tuple(contents.problems))
    name, mark, commit = argument.rpartition(COMMIT_MARK)
    if mark and name:
        return _of_commit(find_runs(name, folders), commit)
    labels = {record.label for record in known if record.label}
    inside = [str(folder / argument) for folder in folders if _exists(str(folder / argument))]
    near = inside or difflib.get_close_matches(argument, labels, n=1)
    hint = f" (did you mean {printable(near[0])!r}?)" if near else ""
    # The runs may be in a file that cannot be read: then it is not known that there are none.
    kind = UsageError if unreadable_files(RunSet("", (), tuple(contents.problems))) else NoRuns
    raise kind(
        f"{printable(argument)!r} is no file or folder, and no label, commit or benchmark id of a "
        f"run in {' or '.join(printable(str(folder)) for folder in folders)}{hint}"
    )


def _named(argument: str, known: Sequence[RunRecord]) -> tuple[RunRecord, ...]:
    """The runs of that label, commit or benchmark id, whichever there is first.

    Raises:
        UsageError: several experiments of `ab` have that name.
    """
    for matches in (
        lambda record: record.label == argument,
        lambda record: _is_of_experiment(record.label, argument),
        lambda record: _begins(record.environment.commit, argument),
        lambda record: _begins(record.benchmark_id, argument),
    ):
        if chosen := tuple(record for record in known if matches(record)):
            labels = {str(record.label) for record in chosen}
            if len(labels) > 1 and _is_of_experiment(chosen[0].label, argument):
                listed = ", ".join(repr(printable(label)) for label in sorted(labels))
                raise UsageError(
                    f"several experiments are called {printable(argument)!r}: name one: {listed}"
                )
            return chosen
    return ()


def _is_of_experiment(label: str | None, name: str) -> bool:
    """Whether a label is the name and the time of an experiment of `ab`."""
    text = label or ""
    return text.startswith(name) and _STAMP.fullmatch(text, len(name)) is not None


def _of_commit(side: RunSet, commit: str) -> RunSet:
    """The runs of a side that are of a commit.

    Raises:
        NoRuns: there are none.
    """
    chosen = tuple(r for r in side.records if _begins(r.environment.commit, commit))
    if not chosen:
        raise NoRuns(f"no run of {printable(side.name)} is of commit {printable(commit)!r}")
    return replace(side, name=f"{side.name}{COMMIT_MARK}{commit}", records=chosen)


def unreadable_files(*sides: RunSet) -> tuple[str, ...]:
    """A line for each file of these sides that could not be read; second copies are left out."""
    problems = dict.fromkeys(problem for side in sides for problem in side.problems)
    return tuple(
        printable(f"{problem.path}: {problem.reason}")
        for problem in problems
        if not store.is_second_copy(problem)
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


def known_runs(sides: Sequence[RunSet], folders: Sequence[Path]) -> list[RunRecord]:
    """The runs in the results folders, and those in the folders of the sides."""
    paths = {folder for folder in folders if folder.exists()}
    for path in (side.path for side in sides if side.path is not None):
        paths |= {path} if path.is_dir() else {*path.parent.glob("*.json")}
    return [record for _, record in store.read_records(sorted(paths)).records]


def known_floors(
    base: RunSet, folders: Sequence[Path], *, skip_broken: bool = True
) -> list[NoiseFloor]:
    """The noise floors beside the records of the base and in the results folders.

    Raises:
        UsageError: one cannot be read, and `skip_broken` is false.
    """
    paths = [*folders, *([base.path] if base.path else [])]
    return sidecars.read_noise_floors(paths, skip_broken=skip_broken)
