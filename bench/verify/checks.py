"""Checks of a folder of records: what a check is, what it finds, and how checks are run.

A check shows what a mistake, a lost file or an edit does to records. It cannot show that numbers
were measured at all: whoever doubts them runs some again (`bench.launch.rerun`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from bench.analysis.result_tables import ResultEntry, find_entries
from bench.machine.repository import History
from bench.records import store
from bench.records.folders import RESULTS_DIR, STUDIES_NAME
from bench.records.schema import RunRecord
from bench.text import printable
from mnist_cnn.errors import UsageError


class CheckOutcome(StrEnum):
    """The outcome of a check."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"
    """The check needs something that this machine does not have, such as a git checkout."""


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """One thing that is wrong, or that may be wrong."""

    text: str
    """The finding in one line."""
    unknown: bool = False
    """Whether it may be right, but cannot be checked here."""


@dataclass(frozen=True, slots=True)
class ResultsFolder:
    """The folder to check, with its records."""

    path: Path
    contents: store.ReadResult
    """Its records, and the files that could not be read."""
    entries: tuple[ResultEntry, ...]
    """Its records as rows of the results page."""
    history: History
    """Commits of this project's checkout."""
    committed: tuple[tuple[str, RunRecord], ...]
    """The other records in this checkout's results folder, each after its file's name."""
    private_words: frozenset[str]
    """Words that no file may hold; see `bench.verify.privacy.own_names`."""

    @property
    def records(self) -> list[tuple[str, RunRecord]]:
        """Each record after the name of its file."""
        return [(self.name(path), record) for path, record in self.contents.records]

    def name(self, path: Path) -> str:
        """A file's path below the folder, for messages."""
        return printable(path.relative_to(self.path).as_posix())


@dataclass(frozen=True, slots=True)
class Check:
    """One promise that results make."""

    name: str
    """A word, by which tables list it."""
    claim: str
    """What is true when the check passes."""
    advice: str
    """What to do when the check fails."""
    find: Callable[[ResultsFolder], Iterable[CheckFinding]]
    """Looks for what breaks the promise."""
    count: Callable[[ResultsFolder], Iterable[str]] | None = None
    """Counts what a reader should know even where the promise is kept; None for nothing."""


@dataclass(frozen=True, slots=True)
class CheckResult:
    """A check and its findings."""

    check: Check
    findings: tuple[CheckFinding, ...]
    notes: tuple[str, ...] = ()
    """What the check counted, a line each."""

    @property
    def outcome(self) -> CheckOutcome:
        """Fail when anything is wrong; unknown when something only may be wrong."""
        if any(not finding.unknown for finding in self.findings):
            return CheckOutcome.FAIL
        return CheckOutcome.UNKNOWN if self.findings else CheckOutcome.PASS


def read_folder(path: Path, history: History, private_words: frozenset[str]) -> ResultsFolder:
    """Read the folder to check.

    Raises:
        UsageError: it is not a folder, or it holds no record.
    """
    if not path.is_dir():
        raise UsageError(
            f"{printable(str(path))} is no folder: name one of records, as results/<machine>"
        )
    contents = store.read_records([path])
    if not contents.records and not contents.problems:
        raise UsageError(
            f"no run records in {printable(str(path))}: make some with `mnist-bench run`"
        )
    entries = tuple(find_entries(contents.records, path))
    committed = tuple(_other_records(contents, history.project))
    return ResultsFolder(path, contents, entries, history, committed, private_words)


def _other_records(contents: store.ReadResult, project: Path) -> Iterator[tuple[str, RunRecord]]:
    """The published records of the checkout that are not among those to check."""
    results = project / RESULTS_DIR
    folders = [path for path in (results, results / STUDIES_NAME) if path.is_dir()]
    own = {record.run_id for _, record in contents.records}
    for path, record in store.read_records(folders).records:
        if record.run_id not in own:
            yield printable(path.relative_to(project).as_posix()), record


def run_checks(folder: ResultsFolder, checks: Iterable[Check]) -> list[CheckResult]:
    """Run checks on a folder, in their order."""
    return [
        CheckResult(
            check, tuple(check.find(folder)), tuple(check.count(folder) if check.count else ())
        )
        for check in checks
    ]


def overall_outcome(results: Sequence[CheckResult]) -> CheckOutcome:
    """The worst outcome."""
    outcomes = {result.outcome for result in results}
    worst_first = (CheckOutcome.FAIL, CheckOutcome.UNKNOWN, CheckOutcome.PASS)
    return next(outcome for outcome in worst_first if outcome in outcomes)


def for_each_record(
    find: Callable[[RunRecord], Iterable[str]],
) -> Callable[[ResultsFolder], Iterator[CheckFinding]]:
    """Make the function of a check from a function that looks at one record."""

    def find_in_folder(folder: ResultsFolder) -> Iterator[CheckFinding]:
        for name, record in folder.records:
            for finding in find(record):
                yield CheckFinding(f"{name}: {printable(finding)}")

    return find_in_folder
