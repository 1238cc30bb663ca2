"""What is compared with what: runs by file, folder, label or commit, sorted into cases.

A *side* is what one argument of `compare` names. A *case* is a set-up that both sides have
measured. What must not be compared is refused; what may be, but differs, is remarked upon.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.analysis import labels, metrics, result_warnings
from bench.analysis.benchmarks import group_runs
from bench.analysis.result_warnings import ResultWarning
from bench.records import store
from bench.records.schema import RunRecord, Status
from bench.records.store import UnreadableFile
from bench.text import count_of, printable
from mnist_cnn.errors import UsageError

SHORTEST_COMMIT = 7
"""Letters of a commit by which runs can be asked for."""


_BROKEN = (Status.FAILED, Status.DIVERGED)
_REPEATED = (
    ResultWarning.BUSY_MACHINE,
    ResultWarning.DIRTY_COMMIT,
    ResultWarning.NOT_THE_TEST_SET,
)
"""Warnings about single runs that matter when they are compared."""

_Value = Callable[[RunRecord], object]
_INCOMPARABLE: tuple[tuple[str, _Value], ...] = (
    ("data sums", lambda r: tuple(sorted(r.dataset.items()))),
    ("target", lambda r: r.protocol.target_accuracy),
    ("protocol version", lambda r: r.protocol.version),
    ("division", lambda r: r.division),
    ("images evaluated on", lambda r: r.recipe.get("evaluation_split", "test")),
    ("--stop-at-target", lambda r: r.protocol.stop_at_target),
)
"""Runs that differ in these answer different questions."""
_POOLED: tuple[tuple[str, _Value], ...] = (
    ("recipe", lambda r: tuple(sorted((k, str(v)) for k, v in r.recipe.items()))),
)
"""And in these, different ones within a side."""
_REMARKED: tuple[tuple[str, _Value], ...] = (
    ("precision", lambda r: r.setup.precision),
    ("kernels", lambda r: r.setup.computed_by),
    ("threads", lambda r: r.setup.threads),
    ("processes", lambda r: r.setup.processes),
    ("machines", lambda r: r.setup.machines),
    ("runs at a time", lambda r: r.setup.parallel_seeds),
    ("global batch", lambda r: r.recipe.get("batch_size")),
    ("device", lambda r: r.setup.device_name),
    ("processor", lambda r: r.environment.cpu),
    ("torch", lambda r: r.environment.torch),
    ("accelerate", lambda r: r.environment.accelerate),
    ("driver", lambda r: r.environment.driver),
    ("record schema", lambda r: r.schema_version),
)


@dataclass(frozen=True, slots=True)
class RunSet:
    """Runs that one name stands for."""

    name: str
    records: tuple[RunRecord, ...]
    """At least one."""
    problems: tuple[UnreadableFile, ...] = ()
    """Files that could not be read."""
    is_path: bool = False
    """Whether the name is a file's or folder's."""


@dataclass(frozen=True, slots=True)
class SetupKey:
    """What makes two runs the same case, and how it is written."""

    recipe: str
    device: str
    processes: int
    threads: int
    precision: str
    kernels: str
    machines: int = 1
    parallel_seeds: int = 1

    def __str__(self) -> str:
        """``"fast, cpu, 1 process, 2 threads, bf16 amx"``."""
        set_up = labels.setup_label(
            self.processes,
            self.threads,
            self.precision,
            self.kernels,
            self.machines,
            self.parallel_seeds,
        )
        return printable(f"{self.recipe}, {self.device}, {set_up}")


@dataclass(frozen=True, slots=True)
class Case:
    """One set-up, as each side measured it: completed runs, in the order they were run."""

    name: str
    setting: str
    """The base's."""
    base: tuple[RunRecord, ...]
    new: tuple[RunRecord, ...]
    unfinished: tuple[str, ...]
    """Why either side is not all there: runs that did not complete, runs that are missing."""
    broke: bool
    """Whether runs of the new side failed or diverged, and none of the base did."""
    same_machine: bool
    """Whether all runs are of one device and processor."""
    remarks: tuple[str, ...]
    """What differs between the sides, or is doubtful about one: a line each."""


@dataclass(frozen=True, slots=True)
class CaseMatch:
    """Two sides, case by case."""

    cases: tuple[Case, ...]
    missing: tuple[str, ...]
    """Cases that only the base has: not measured again, or renamed."""
    added: tuple[str, ...]
    """Cases that only the new side has."""
    unread: tuple[str, ...] = ()
    """Files of either side that are no records, and why."""


def find_runs(argument: str, results_dir: Path) -> RunSet:
    """The runs that a word of the command line stands for.

    Args:
        argument: a file or folder; or the label, the commit or the benchmark's id of runs in
            `results_dir`, the latter two by their first letters.
        results_dir: where labels and commits are looked up.

    Raises:
        UsageError: nothing is called so, or nothing in it is a record.
    """
    if not argument.strip():
        raise UsageError("one of the names to compare is empty")
    if _exists(argument):
        found = store.read_records([Path(argument)])
        if not found.records:
            raise UsageError(_no_records(argument, found.problems))
        return RunSet(
            argument, tuple(r for _, r in found.records), tuple(found.problems), is_path=True
        )
    known = store.read_records([results_dir] if results_dir.exists() else [])
    records = [record for _, record in known.records]
    for matches in (
        lambda record: record.label == argument,
        lambda record: _begins(record.environment.commit, argument),
        lambda record: _begins(record.benchmark_id, argument),
    ):
        if chosen := tuple(record for record in records if matches(record)):
            return RunSet(argument, chosen, tuple(known.problems))
    labels = {record.label for record in records if record.label}
    near = difflib.get_close_matches(argument, labels, n=1)
    hint = f" (did you mean {printable(near[0])!r}?)" if near else ""
    raise UsageError(
        f"{printable(argument)!r} is no file or folder, and no label or commit of a run in "
        f"{printable(str(results_dir))}{hint}"
    )


def match_cases(base: RunSet, new: RunSet) -> CaseMatch:
    """Sort two sides into cases.

    Where each side has one case, the two are compared whatever their set-ups.

    Raises:
        UsageError: the sides share runs, have no case in common, or hold what cannot be compared.
    """
    shared = {r.run_id for r in base.records} & {r.run_id for r in new.records}
    if shared:
        raise UsageError(
            f"{printable(base.name)} and {printable(new.name)} have {count_of(len(shared), 'run')} "
            "in common: compared with itself, a run shows no difference"
        )
    old, fresh = group_by_setup(base), group_by_setup(new)
    if len(old) == len(fresh) == 1:
        (before, olds), (after, news) = *old.items(), *fresh.items()
        name = str(before) if before == after else f"{before} against {after}"
        return CaseMatch((_case(name, str(before), olds, news),), (), (), _unread(base, new))
    both = [setting for setting in old if setting in fresh]
    if not both:
        raise UsageError(
            f"{printable(base.name)} and {printable(new.name)} have no set-up in common (such as "
            f"{next(iter(old))}); name one set-up of each, by its file, label or benchmark id"
        )
    return CaseMatch(
        tuple(_case(str(s), str(s), old[s], fresh[s]) for s in both),
        tuple(str(setting) for setting in old if setting not in fresh),
        tuple(str(setting) for setting in fresh if setting not in old),
        _unread(base, new),
    )


def _unread(*sides: RunSet) -> tuple[str, ...]:
    problems = {problem: None for one in sides for problem in one.problems}
    return tuple(
        printable(f"{problem.path}: {problem.reason}")
        for problem in problems
        if not problem.reason.endswith("counted once")
    )


def _exists(argument: str) -> bool:
    try:
        return Path(argument).exists()
    except (OSError, ValueError):  # too long, or with a zero byte, to be a name
        return False


def interleaved(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> bool:
    """Whether the sides took turns: in order of time, every two runs are one of each."""
    if len(base) != len(new):
        return False
    new_ids = {record.run_id for record in new}
    order = sorted((*base, *new), key=lambda record: record.started_utc)
    turns = [record.run_id in new_ids for record in order]
    return all(one != other for one, other in zip(turns[::2], turns[1::2], strict=True))


def group_by_setup(of: RunSet) -> dict[SetupKey, list[RunRecord]]:
    """A side's runs, set-up by set-up, in the order they were run.

    Raises:
        UsageError: it holds runs of one set-up that answer different questions.
    """
    cases: dict[SetupKey, list[RunRecord]] = {}
    for record in sorted(of.records, key=lambda record: record.started_utc):
        setup = record.setup
        setting = SetupKey(
            recipe=str(record.recipe.get("name") or "unnamed recipe"),
            device=setup.device,
            processes=setup.processes,
            threads=setup.threads,
            precision=setup.precision,
            kernels=setup.computed_by,
            machines=setup.machines,
            parallel_seeds=setup.parallel_seeds,
        )
        cases.setdefault(setting, []).append(record)
    for setting, records in cases.items():
        if differing := _differing((*_INCOMPARABLE, *_POOLED), records, records):
            raise UsageError(
                f"{printable(of.name)} holds runs of {setting} that are not of one kind: "
                f"{differing[0]}; name their files or their label"
            )
    return cases


def _case(name: str, setting: str, olds: Sequence[RunRecord], news: Sequence[RunRecord]) -> Case:
    """One case, its incomparable kinds refused."""
    if differing := _differing(_INCOMPARABLE, olds, news):
        raise UsageError(f"{name}: cannot be compared: {differing[0]}")
    remarks = _differing((*_POOLED, *_REMARKED), olds, news)
    unfinished = []
    for which, records in (("base", olds), ("new", news)):
        done = metrics.completed(records)
        if len(done) < len(records):
            unfinished.append(
                f"{which}: {len(records) - len(done)} of {len(records)} not completed in one go"
            )
        benchmarks = group_runs((None, record) for record in records)
        if any(ResultWarning.RUNS_MISSING in benchmark.warnings for benchmark in benchmarks):
            unfinished.append(f"{which}: {ResultWarning.RUNS_MISSING}")
        for warning, count in result_warnings.benchmark_warnings(records).items():
            if warning in _REPEATED and count:
                remarks.append(f"{which}, {count_of(count, 'run')}: {warning}")
    machines = {(r.setup.device_name, r.environment.cpu) for r in (*olds, *news)}
    before, after = (any(r.status in _BROKEN for r in records) for records in (olds, news))
    return Case(
        name,
        setting,
        tuple(metrics.completed(olds)),
        tuple(metrics.completed(news)),
        tuple(unfinished),
        after and not before,
        len(machines) == 1,
        (*unfinished, *remarks),
    )


def _differing(
    fields: Iterable[tuple[str, _Value]], olds: Sequence[RunRecord], news: Sequence[RunRecord]
) -> list[str]:
    """A line for each of these that has more than one value in the two together."""
    lines = []
    for name, value in fields:
        before, after = ({_hashable(value(r)) for r in records} for records in (olds, news))
        if len(before | after) > 1:
            lines.append(_difference(name, before, after))
    return lines


def _hashable(value: object) -> object:
    """Itself, or as text: a foreign record's recipe may hold anything."""
    return value if isinstance(value, tuple | str | int | float | bool | None) else repr(value)


def _difference(name: str, before: set[object], after: set[object]) -> str:
    if all(isinstance(value, tuple) for value in before | after):
        pairs = [set(value) for value in before | after if isinstance(value, tuple)]
        changed = sorted(str(key) for key, _ in set.union(*pairs) - set.intersection(*pairs))
        return f"{name} differs: {printable(', '.join(dict.fromkeys(changed)))}"
    shown = (" or ".join(sorted(str(value) for value in values)) for values in (before, after))
    return f"{name} differs: {printable(' against '.join(shown))}"


def _begins(value: str | None, start: str) -> bool:
    return bool(value) and len(start) >= SHORTEST_COMMIT and str(value).startswith(start.lower())


def _no_records(argument: str, problems: Sequence[UnreadableFile]) -> str:
    if problems:
        first = problems[0]
        return (
            f"no run records in {printable(argument)}: {printable(str(first.path))}: {first.reason}"
        )
    return f"no run records in {printable(argument)}: make some with `mnist-bench run`"
