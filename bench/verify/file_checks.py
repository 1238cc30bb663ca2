"""Checks of the files of a folder: every one is a record or belongs to one, and is not private."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from bench.records import store, sweep_plan
from bench.records.benchmark_plan import PLAN_SUFFIX, BenchmarkPlan
from bench.records.folders import walk
from bench.records.model import Model, parse_document
from bench.records.record_file import LARGEST_RECORD_BYTES
from bench.records.sidecars import NoiseFloor, PeakFlops
from bench.text import printable
from bench.verify import privacy
from bench.verify.checks import Check, CheckFinding, ResultsFolder
from mnist_cnn.disk import read_file
from mnist_cnn.errors import reason_of

_PUBLISHED_NAMES = (store.PAGE_NAME, store.CHART_NAME, store.REPORT_NAME)
"""Names of the files that `publish` writes beside records."""
_SIDECARS: dict[str, tuple[str, type[Model]]] = {
    NoiseFloor.suffix: ("noise floor", NoiseFloor),
    PeakFlops.suffix: ("measured peak", PeakFlops),
    PLAN_SUFFIX: ("plan", BenchmarkPlan),
}
"""Name and content of each kind of sidecar, by its suffix."""


def _files(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for problem in folder.contents.problems:
        yield CheckFinding(f"{folder.name(problem.path)}: {problem.reason}")
    for path, record in folder.contents.records:
        if path.name != store.file_name(record):
            yield CheckFinding(
                f"{folder.name(path)}: its content is that of {store.file_name(record)}"
            )
    for path in _all_files(folder.path):
        if problem_of_file := _problem(path):
            yield CheckFinding(f"{folder.name(path)}: {problem_of_file}")


def _problem(path: Path) -> str | None:
    """Why a file may not be in a folder of records; None when it may."""
    if path.is_symlink():
        return "it is a link"
    if path.suffix in _SIDECARS:
        name, model = _SIDECARS[path.suffix]
        try:
            parse_document(model, read_file(path, LARGEST_RECORD_BYTES))
        except (OSError, ValueError):
            return f"not a valid {name}"
    elif path.suffix == sweep_plan.SWEEP_SUFFIX:
        try:
            sweep_plan.read_sweep_plan(path)
        except (OSError, ValueError):
            return "not a valid sweep plan"
    elif path.name.startswith(".") or not (path.suffix == ".json" or path.name in _PUBLISHED_NAMES):
        return "not a record"
    return None


def _private(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for path in _all_files(folder.path):
        name = folder.name(path)
        for leak in privacy.find_name_leaks(name, folder.private_words):
            yield CheckFinding(f"{name}: {printable(leak)}")
        if path.name in _PUBLISHED_NAMES or path.is_symlink():
            continue  # made from records, which are checked themselves
        try:
            text = read_file(path, LARGEST_RECORD_BYTES).decode("utf-8", errors="replace")
        except OSError as error:
            yield CheckFinding(f"{name}: cannot be read: {reason_of(error)}")
            continue
        for leak in privacy.find_leaks(text, folder.private_words):
            yield CheckFinding(f"{name}: {printable(leak)}")


def _all_files(folder: Path) -> list[Path]:
    """All files, hidden ones and links too, in an order that does not depend on the disk."""
    paths = []
    for parent, folders, names in walk(folder):
        links = [name for name in folders if (parent / name).is_symlink()]
        paths += [parent / name for name in (*names, *links)]
    return sorted(paths)


RECORDS = Check(
    "records",
    "every file is a record of a known schema version, under its own name, once",
    "Remove files that are not records; restore edited or renamed records as the run wrote them.",
    _files,
)
PRIVATE = Check(
    "private",
    "no home folder, user, host, address, serial number or token was found",
    "Run again from another folder or with another label: records must not be edited.",
    _private,
)
