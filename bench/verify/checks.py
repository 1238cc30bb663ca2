"""Whether a folder of records may stand beside the others: what is checked of a contribution.

Shows what a mistake, a lost file or a careless edit does to records. It cannot show that numbers
were measured at all: whoever doubts them runs the record's command at its commit.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from pathlib import Path

from pydantic import ValidationError

from bench.analysis import benchmarks, metrics
from bench.analysis.result_tables import ResultEntry, find_entries
from bench.machine.repository import History
from bench.records import sidecars, store, sweep_plan
from bench.records.protocol import PROTOCOL_VERSION, QUALITY_TARGET
from bench.records.schema import LapKind, Model, RunRecord, Status
from bench.records.sidecars import NoiseFloor, PeakFlops
from bench.stats.stopping import precise_enough
from bench.text import printable
from bench.verify import privacy
from bench.verify.consistency import find_contradictions
from mnist_cnn.data import files
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import FREE_IN_CLOSED, REFERENCE, Recipe, division

PARAMETER_LIMIT = 20_000
"""As in mnist_cnn.model, which needs torch."""
MADE_HERE = (store.PAGE_NAME, store.CHART_NAME, store.REPORT_NAME)
"""Files beside records that `publish` makes."""
_SIDECARS: dict[str, tuple[str, type[Model]]] = {
    NoiseFloor.suffix: ("noise floor", NoiseFloor),
    PeakFlops.suffix: ("measured peak", PeakFlops),
}
"""What is kept beside records, by its suffix."""
_OVERLAP_SECONDS = 2.0
"""By which a machine's wall clock may be set back between two runs."""


class CheckOutcome(StrEnum):
    """What came of a check."""

    PASS = "pass"
    FAIL = "fail"
    UNKNOWN = "unknown"
    """It could not be made here."""


@dataclass(frozen=True, slots=True)
class CheckFinding:
    """Something that is not as it should be, in one line."""

    text: str
    unknown: bool = False
    """Whether it may be as it should be, but that cannot be found out here."""


@dataclass(frozen=True, slots=True)
class ResultsFolder:
    """What is verified."""

    path: Path
    found: store.ReadResult
    entries: tuple[ResultEntry, ...]
    history: History
    names: frozenset[str]
    """Words that must not be in it; see `bench.verify.privacy.own_names`."""

    @property
    def records(self) -> list[tuple[str, RunRecord]]:
        """Each with the name of its file, below the folder."""
        return [(self.name(path), record) for path, record in self.found.records]

    def name(self, path: Path) -> str:
        """A file's, below the folder."""
        return printable(path.relative_to(self.path).as_posix())


@dataclass(frozen=True, slots=True)
class Check:
    """One promise that results make."""

    name: str
    claim: str
    """What is so where it passes."""
    advice: str
    """What to do where it does not."""
    look: Callable[[ResultsFolder], Iterable[CheckFinding]]


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What came of one check."""

    check: Check
    findings: tuple[CheckFinding, ...]

    @property
    def outcome(self) -> CheckOutcome:
        """Failed where anything was found to be wrong."""
        if any(not finding.unknown for finding in self.findings):
            return CheckOutcome.FAIL
        return CheckOutcome.UNKNOWN if self.findings else CheckOutcome.PASS


def read_folder(path: Path, history: History, names: frozenset[str]) -> ResultsFolder:
    """What there is to verify.

    Raises:
        UsageError: it is no folder, or there is no record in it.
    """
    if not path.is_dir():
        raise UsageError(
            f"{printable(str(path))} is no folder: name one of records, as results/<machine>"
        )
    found = store.read_records([path])
    if not found.records and not found.problems:
        raise UsageError(
            f"no run records in {printable(str(path))}: make some with `mnist-bench run`"
        )
    entries = tuple(find_entries(found.records, path))
    return ResultsFolder(path, found, entries, history, names)


def run_checks(folder: ResultsFolder, further: Sequence[Check] = ()) -> list[CheckResult]:
    """Make every check of this module, then those that other rooms know how to make."""
    return [CheckResult(check, tuple(check.look(folder))) for check in (*CHECKS, *further)]


def overall_outcome(results: Sequence[CheckResult]) -> CheckOutcome:
    """The worst of them."""
    outcomes = {result.outcome for result in results}
    return next(
        one
        for one in (CheckOutcome.FAIL, CheckOutcome.UNKNOWN, CheckOutcome.PASS)
        if one in outcomes
    )


# --- Files


def _files(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for problem in folder.found.problems:
        yield CheckFinding(f"{folder.name(problem.path)}: {problem.reason}")
    for path, record in folder.found.records:
        if path.name != store.file_name(record):
            yield CheckFinding(
                f"{folder.name(path)}: its content is that of {store.file_name(record)}"
            )
    for path in _all_files(folder.path):
        name = folder.name(path)
        if path.is_symlink():
            yield CheckFinding(f"{name}: a link")
        elif path.suffix in _SIDECARS:
            what, kind = _SIDECARS[path.suffix]
            try:
                kind.model_validate_json(path.read_bytes())
            except (OSError, ValidationError):
                yield CheckFinding(f"{name}: no {what}")
        elif path.suffix == sweep_plan.SWEEP_SUFFIX:
            try:
                sweep_plan.read_sweep_plan(path)
            except (OSError, ValueError):
                yield CheckFinding(f"{name}: no order of a sweep's runs")
        elif path.name.startswith(".") or not (path.suffix == ".json" or path.name in MADE_HERE):
            yield CheckFinding(f"{name}: no record")


def _all_files(path: Path) -> list[Path]:
    """Hidden ones and links too, in an order that does not depend on the disk."""
    found = []
    for folder, folders, names in os.walk(path):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        found += [Path(folder, name) for name in (*names, *links)]
    return sorted(found)


def _private(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for path in _all_files(folder.path):
        name = folder.name(path)
        for leak in privacy.find_name_leaks(name, folder.names):
            yield CheckFinding(f"{name}: {printable(leak)}")
        if path.name in MADE_HERE or path.is_symlink():
            continue  # made from records, which are looked through themselves
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError as error:
            yield CheckFinding(f"{name}: cannot be read: {error.strerror}")
            continue
        for leak in privacy.find_leaks(text, folder.names):
            yield CheckFinding(f"{name}: {printable(leak)}")


# --- Single records


def _of_each(
    look: Callable[[RunRecord], Iterable[str]],
) -> Callable[[ResultsFolder], Iterator[CheckFinding]]:
    """A check that looks at one record after the other."""

    def check(folder: ResultsFolder) -> Iterator[CheckFinding]:
        for name, record in folder.records:
            for text in look(record):
                yield CheckFinding(f"{name}: {printable(text)}")

    return check


_KNOWN_SUMS = {file.name: file.sha256 for file in files.FILES}


def _data(record: RunRecord) -> Iterator[str]:
    # A run that ended before it had read the data knows no sums.
    if not record.dataset and record.status is not Status.COMPLETED:
        return
    for name in sorted(_KNOWN_SUMS.keys() | record.dataset.keys()):
        if record.dataset.get(name) != _KNOWN_SUMS.get(name):
            yield f"{name}: SHA-256 {record.dataset.get(name)}, MNIST's is {_KNOWN_SUMS.get(name)}"


def _protocol(record: RunRecord) -> Iterator[str]:
    protocol = record.protocol
    if protocol.version != PROTOCOL_VERSION:
        yield f"protocol version {protocol.version}, not {PROTOCOL_VERSION}"
    if protocol.target_accuracy != QUALITY_TARGET:
        yield f"target {protocol.target_accuracy}, not {QUALITY_TARGET}"
    split = record.recipe.get("evaluation_split", "test")
    if split != "test":
        yield f"evaluated on {split} images, not on the test set"


def _division(record: RunRecord) -> Iterator[str]:
    # What older recipes did not name has in the reference the value that changes nothing.
    values = {**REFERENCE.values(), **record.recipe}
    try:
        recipe = Recipe(**values)
        belongs = division(recipe)
        too_many = [e.epoch for e in record.epochs if e.samples > recipe.train_images]
    except (TypeError, UsageError) as error:
        yield f"its recipe is none: {error}"
        return
    if record.division != belongs:
        differing = [
            name
            for name, value in REFERENCE.values().items()
            if name not in FREE_IN_CLOSED and values[name] != value
        ]
        why = f": unlike the reference in {', '.join(differing)}" if belongs == "open" else ""
        yield f"it says {record.division} division, its recipe is {belongs}{why}"
    if too_many:
        yield f"epoch {too_many[0]} trained on more images than there are"


# --- The code


def _commit(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for name, record in folder.records:
        commit, dirty = record.environment.commit, record.environment.dirty
        if commit is None:
            yield CheckFinding(f"{name}: no commit")
        elif dirty is not False:
            yield CheckFinding(f"{name}: files differed from commit {printable(commit)[:12]}")
        elif commit not in folder.history.commits:
            why = folder.history.unknown
            yield CheckFinding(
                f"{name}: commit {printable(commit)[:12]} is not in this checkout's history"
                + ("" if why is None else f" ({why})"),
                unknown=why is not None,
            )


def _parameters(folder: ResultsFolder) -> Iterator[CheckFinding]:
    of_commit: dict[str, list[str]] = {}
    for name, record in folder.records:
        of_commit.setdefault(record.environment.commit or "", []).append(name)
    for commit, names in of_commit.items():
        count = folder.history.parameters(commit)
        of = f"{names[0]}{'' if len(names) == 1 else f' and {len(names) - 1} more'}"
        if commit not in folder.history.commits:
            # That it is not known is a finding of the check before.
            yield CheckFinding(f"{of}: the code of their commit is not here", unknown=True)
        elif count is None:
            yield CheckFinding(f"{of}: the code at {commit[:12]} asserts no number of parameters")
        elif count >= PARAMETER_LIMIT:
            yield CheckFinding(f"{of}: the network at {commit[:12]} has {count:,} parameters")


# --- Runs together


def _seeds(folder: ResultsFolder) -> Iterator[CheckFinding]:
    by_id: dict[str, list[RunRecord]] = {}
    for _, record in folder.records:
        by_id.setdefault(record.benchmark_id, []).append(record)
    for benchmark_id, records in by_id.items():
        for text in _of_benchmark(sorted(records, key=lambda r: (r.run_index, r.started_utc))):
            yield CheckFinding(f"benchmark {printable(benchmark_id)[:8]}: {text}")
    for entry in folder.entries:
        records = entry.benchmark.records
        if records[0].protocol.runs == 1:
            for text in _one_by_one(records):
                yield CheckFinding(f"runs like {printable(entry.id)}, started one by one: {text}")
    for path in sidecars.find_sidecars([folder.path], sweep_plan.SWEEP_SUFFIX):
        beside = [record for of, record in folder.found.records if of.parent == path.parent]
        with suppress(OSError, ValueError):  # a finding of the first check
            for run in sweep_plan.missing_runs(path, sweep_plan.read_sweep_plan(path), beside):
                yield CheckFinding(f"{folder.name(path)}: no record of its run {printable(run)}")


def _of_benchmark(records: Sequence[RunRecord]) -> Iterator[str]:
    """What is wrong with the runs that were started by one command."""
    numbered = [(None, record) for record in records]
    if len(benchmarks.group_runs(numbered)) > 1:
        yield "its runs differ in set-up, recipe, protocol, label or commit"
    indices = [record.run_index for record in records]
    last, ended = records[-1], records[-1].status in (Status.INTERRUPTED, Status.FAILED)
    promised = last.run_index if ended else _promised(records)
    missing = sorted(set(range(1, promised + 1)) - set(indices))
    if missing:
        yield f"run {', '.join(map(str, missing))} of {promised} is not here"
    # A run that was taken up again has a record of each attempt that lived to write one.
    attempts = Counter(r.run_index for r in records if not _superseded(r, records))
    if repeated := [index for index, count in attempts.items() if count > 1]:
        yield f"run {', '.join(map(str, repeated))} is there more than once"
    if max(indices) > last.protocol.runs:
        yield f"run {max(indices)} of {last.protocol.runs}"
    for record in records:
        first = declared_seed(record.command)
        if record.seed != first + record.run_index - 1:
            yield (
                f"run {record.run_index} has seed {record.seed}; its command starts at {first}, "
                f"so {first + record.run_index - 1} was due"
            )
    if any(record.setup.parallel_seeds > 1 for record in records):
        return  # several at a time
    ordered = sorted(records, key=lambda record: (record.run_index, record.started_utc))
    for before, after in pairwise(ordered):
        apart = (after.started_utc - before.started_utc).total_seconds()
        if apart < before.load.elapsed_seconds - _OVERLAP_SECONDS:
            yield f"run {after.run_index} started before run {before.run_index} had ended"


def _superseded(record: RunRecord, records: Sequence[RunRecord]) -> bool:
    """Whether a run that had ended badly was taken up again, by another record's word."""
    return record.status in (Status.INTERRUPTED, Status.FAILED) and any(
        other.run_index == record.run_index and other.resumed > record.resumed for other in records
    )


def _promised(records: Sequence[RunRecord]) -> int:
    """How many runs there must have been, the last of which was not cut short."""
    protocol, there = records[-1].protocol, records[-1].run_index
    if protocol.half_width is None:
        return protocol.runs
    done = metrics.completed(records)
    trained = [metrics.seconds_of(record, LapKind.TRAIN) or 0.0 for record in done]
    spent = [max((lap.start_seconds + lap.seconds for lap in r.laps), default=0) for r in records]
    stopped = all(trained) and precise_enough(
        protocol.half_width, protocol.budget_seconds, trained, spent
    )
    return there if stopped else min(protocol.runs, there + (there < protocol.runs))


def _one_by_one(records: Sequence[RunRecord]) -> Iterator[str]:
    """What is wrong with runs of a benchmark each that belong together."""
    there = {record.seed for record in records}
    if missing := sorted(set(range(min(there), max(there) + 1)) - there):
        yield f"seed {', '.join(map(str, missing))} of {min(there)} to {max(there)} is not here"
    done = Counter(record.seed for record in metrics.completed(records))
    if repeated := sorted(seed for seed, count in done.items() if count > 1):
        yield f"seed {', '.join(map(str, repeated))} is there more than once"


def declared_seed(command: Sequence[str]) -> int:
    """The first seed that a command line asks for; 0 where it says nothing, as `run` takes it."""
    found = "0"
    for word, value in zip(command, (*command[1:], ""), strict=True):
        if word == "--seed":
            found = value
        elif word.startswith("--seed="):
            found = word.partition("=")[2]
    return int(found) if found.isdecimal() and len(found) < 20 else 0


CHECKS: tuple[Check, ...] = (
    Check(
        "records",
        "every file is a record of a known version, under its own name, once",
        "Take out what is no record; get back what was edited or renamed as the run wrote it.",
        _files,
    ),
    Check(
        "data",
        "every run read MNIST: the four known SHA-256 sums",
        "Run again with verified files: mnist-bench data.",
        _of_each(_data),
    ),
    Check(
        "seeds",
        "every benchmark has all its runs, each with the seed its command says, none twice",
        "Put back what was left out, or finish the sweep. Runs of one seed made again belong in a "
        "folder of their own.",
        _seeds,
    ),
    Check(
        "commit",
        "every run is of a commit of this project, and no file differed from it",
        "Commit, or check out a commit of this project, then run again.",
        _commit,
    ),
    Check(
        "protocol",
        f"target {QUALITY_TARGET:.1%}, protocol version {PROTOCOL_VERSION}, all on the test set",
        "Run again without --target-accuracy, with a recipe that evaluates on the test set.",
        _of_each(_protocol),
    ),
    Check(
        "laps",
        "what was counted and what was timed agree: epochs, images, evaluations, time to target",
        "A record is never edited: get back the file as the run wrote it, or run again.",
        _of_each(find_contradictions),
    ),
    Check(
        "private",
        "no home folder, user, host, address, serial number or token was found",
        "Run again from another folder or with another label: records are not edited.",
        _private,
    ),
    Check(
        "parameters",
        f"the network has fewer than {PARAMETER_LIMIT:,} parameters, says the commit's own code",
        "Results are for networks below the limit: docs/protocol.md.",
        _parameters,
    ),
    Check(
        "division",
        "closed is the reference recipe, open any other, as its fields say",
        "Run again: the division follows from the recipe and is not chosen.",
        _of_each(_division),
    ),
)
