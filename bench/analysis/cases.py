"""Sorts the runs of two sides into cases, which are what `compare` compares.

A *case* is a set-up that both sides have measured. What must not be compared is refused; what may
be compared but differs gets a remark. The *base* side is the one before, the *new* side after.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property

from bench.analysis import labels, metrics, result_warnings
from bench.analysis.benchmarks import group_runs
from bench.analysis.differences import (
    INCOMPARABLE,
    KERNELS,
    POOLED,
    REMARKED,
    find_differences,
)
from bench.analysis.machine_differences import machine_relation, machine_remarks
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.run_sets import RunSet, unreadable_files
from bench.analysis.sessions import session_remarks
from bench.analysis.setup_key import SetupKey, recipe_name
from bench.analysis.step_code import codes_differ
from bench.records.machine_key import MachineKey, MachineRelation
from bench.records.schema import RunRecord, Status
from bench.text import count_of, printable, target
from mnist_cnn.errors import UsageError

FAILURES = (Status.FAILED, Status.DIVERGED)
"""How runs end by a fault of what was measured; others were stopped."""
_REMARKED_WARNINGS = (
    ResultWarning.BUSY_MACHINE,
    *sorted(result_warnings.UNRANKED),
    ResultWarning.DIRTY_COMMIT,
    ResultWarning.NOT_THE_TEST_SET,
)
"""Warnings about runs that become remarks of their case."""
_CASE_FIELDS = (
    *("recipe_name", "setup.device", "setup.processes", "setup.machines", "setup.threads"),
    *("setup.precision", "setup.kernels", "setup.captured", "setup.parallel_seeds"),
)
"""Fields of `SetupKey` that distinguish the cases of a side: those that `setup_name` shows."""
_KIND_FIELDS = (
    *("division", "recipe.epochs", "recipe.evaluation_split"),
    *("protocol.target_accuracy", "protocol.stop_at_target"),
)
"""Fields in which runs of one set-up may differ within a side: each kind is a case of its own, such
as whole runs of a recipe and runs of one epoch."""
_CODE_FIELDS = ("setup.kernels", "setup.captured")
Groups = dict[SetupKey, list[RunRecord]]
"""Runs by the key of their case, in the order they were run."""


@dataclass(frozen=True)
class Case:
    """One set-up, as each side measured it."""

    name: str
    """The set-up in words, or both set-ups where they differ."""
    setup_name: str
    """The base's set-up in words; the noise floor is stored under this name."""
    all_base: tuple[RunRecord, ...]
    """The base's runs, in the order they were run."""
    all_new: tuple[RunRecord, ...]
    """The new side's runs, in the order they were run."""
    noise_remarks: tuple[str, ...] = ()
    """Remarks about the noise floor, which runs themselves do not show."""

    @cached_property
    def base(self) -> tuple[RunRecord, ...]:
        """The base's completed runs, in the order they were run."""
        return tuple(metrics.completed(self.all_base))

    @cached_property
    def new(self) -> tuple[RunRecord, ...]:
        """The new side's completed runs, in the order they were run."""
        return tuple(metrics.completed(self.all_new))

    @cached_property
    def unfinished(self) -> tuple[str, ...]:
        """Why a side is incomplete: a line for runs that did not complete, and for missing runs."""
        return (*_unfinished_lines("base", self.all_base), *_unfinished_lines("new", self.all_new))

    @property
    def only_new_failed(self) -> bool:
        """Whether runs of the new side failed or diverged, and no run of the base did."""
        base_failed, new_failed = (
            any(record.status in FAILURES for record in side)
            for side in (self.all_base, self.all_new)
        )
        return new_failed and not base_failed

    @property
    def machine_relation(self) -> MachineRelation:
        """Whether all runs are of one kind of machine, as far as is known."""
        return machine_relation(self.all_base, self.all_new)

    @property
    def same_machine(self) -> bool:
        """Whether nothing known of the machines differs; `machine_relation` has the doubts."""
        return self.machine_relation is not MachineRelation.DIFFERENT

    # Made where they are shown only: a table of many rows compares each of them for one number.
    @cached_property
    def remarks(self) -> tuple[str, ...]:
        """A line for each difference between the sides, and for each doubt about one of them."""
        base, new = self.all_base, self.all_new
        return (
            *self.unfinished,
            *_kernel_lines(base, new),
            *find_differences((*POOLED, *REMARKED), base, new),
            *machine_remarks(base, new),
            *_warning_lines("base", base),
            *_warning_lines("new", new),
            *session_remarks(base, new, by_turns=interleaved(base, new)),
            *self.noise_remarks,
        )


@dataclass(frozen=True, slots=True)
class CaseMatch:
    """The cases of two sides."""

    cases: tuple[Case, ...]
    """Set-ups that both sides have."""
    missing: tuple[str, ...]
    """Names of cases that only the base has: not measured again, or renamed."""
    added: tuple[str, ...]
    """Names of cases that only the new side has."""
    uncompleted: tuple[Case, ...] = ()
    """Cases of which a side has no completed run, apart from `cases`; only where a gate asks."""
    unreadable: tuple[str, ...] = ()
    """A line for each file of either side that cannot be read as a record, with the reason."""


def match_cases(base: RunSet, new: RunSet) -> CaseMatch:
    """Sort two sides into cases.

    Where each side has one set-up, the two are compared even if they differ. Where two machines
    have none in common, set-ups are compared that differ in the kernels only.

    Raises:
        UsageError: the sides share runs, have no case in common, or hold what cannot be compared.
    """
    shared = {r.run_id for r in base.records} & {r.run_id for r in new.records}
    if shared:
        raise UsageError(
            f"{printable(base.name)} and {printable(new.name)} have {count_of(len(shared), 'run')} "
            "in common: compared with itself, a run shows no difference"
        )
    base_groups, new_groups = group_by_kind(base, new)
    pairs = {key: key for key in base_groups if key in new_groups}
    machines = ""
    if len(base_groups) == len(new_groups) == 1:
        pairs = dict(zip(base_groups, new_groups, strict=True))
    elif not pairs and machine_relation(base.records, new.records) is MachineRelation.DIFFERENT:
        machines = ", and are of different machines"
        base_groups, new_groups = group_by_kind(base, new, across=_CODE_FIELDS)
        pairs = _pairs_but_for_code(base_groups, new_groups)
    base_names, new_names = (
        {key: _name_of(key, records[0], (base_groups, new_groups)) for key, records in side.items()}
        for side in (base_groups, new_groups)
    )
    if not pairs:
        raise UsageError(
            f"{printable(base.name)} ({next(iter(base_names.values()))}) and {printable(new.name)} "
            f"({next(iter(new_names.values()))}) have no set-up in common{machines}. Name one "
            "set-up of each side, by its file, label or benchmark id, to compare these two"
        )
    cases = []
    for base_key, new_key in pairs.items():
        base_name = name = base_names[base_key]
        if new_key != base_key:
            name = f"{new_names[new_key]} against {base_name}"
        runs = base_groups[base_key], new_groups[new_key]
        cases.append(_case(name, setup_name(runs[0][0]), *runs))
    return CaseMatch(
        tuple(cases),
        tuple(name for key, name in base_names.items() if key not in pairs),
        tuple(name for key, name in new_names.items() if key not in pairs.values()),
        unreadable=unreadable_files(base, new),
    )


def _pairs_but_for_code(base: Groups, new: Groups) -> dict[SetupKey, SetupKey]:
    """Keys that differ in the kernels only, where each side has one such key."""
    alike: dict[SetupKey, tuple[list[SetupKey], list[SetupKey]]] = {}
    for position, keys in enumerate((base, new)):
        for key in keys:
            rest = key.ignoring(*_CODE_FIELDS)
            alike.setdefault(rest, ([], []))[position].append(key)
    return {
        base_keys[0]: new_keys[0]
        for base_keys, new_keys in alike.values()
        if len(base_keys) == len(new_keys) == 1
    }


def group_by_kind(*sides: RunSet, across: Collection[str] = ()) -> list[Groups]:
    """Each side's runs by set-up; by kind as well, where a side has several kinds of a set-up.

    Args:
        sides: what is compared.
        across: fields of set-ups that do not count: where one of them has several kinds, those that
            differ in these fields only are divided too.

    Raises:
        UsageError: a side holds runs of one kind that must not be compared or pooled.
    """
    all_groups = [_by_fields(side.records, _CASE_FIELDS) for side in sides]
    divided = {
        key.ignoring(*across)
        for groups in all_groups
        for key, records in groups.items()
        if _find_mix(records)
    }
    by_kind = []
    for side, groups in zip(sides, all_groups, strict=True):
        kinds: Groups = {}
        for key, records in groups.items():
            is_divided = key.ignoring(*across) in divided
            parts = _by_fields(records, (*_CASE_FIELDS, *_KIND_FIELDS)) if is_divided else {}
            kinds |= parts or {key: records}
            for part in parts.values():
                if mix := _find_mix(part):
                    raise _mixed_error(side, part, mix)
        for records in kinds.values():
            _require_one_machine(side, records)
        by_kind.append(kinds)
    return by_kind


def _by_fields(records: Sequence[RunRecord], fields: Collection[str]) -> Groups:
    groups: Groups = {}
    for record in sorted(records, key=lambda record: record.started_utc):
        groups.setdefault(SetupKey.of(record, only=fields), []).append(record)
    return groups


def _find_mix(records: Sequence[RunRecord]) -> str | None:
    """In what runs of one set-up differ that must not be pooled; None where in nothing."""
    return next(iter(find_differences((*INCOMPARABLE, *POOLED), records, records)), None)


def _mixed_error(side: RunSet, records: Sequence[RunRecord], difference: str) -> UsageError:
    ids = dict.fromkeys(record.benchmark_id[:8] for record in records)
    return UsageError(
        f"{printable(side.name)} holds runs of {setup_name(records[0])} that are not of one kind: "
        f"{difference}; name one benchmark by its id: {printable(', '.join(ids))}"
    )


def _name_of(key: SetupKey, record: RunRecord, sides: Sequence[Groups]) -> str:
    """The set-up in words, and in what its kind differs from the others of this set-up.

    Args:
        key: the key of the case.
        record: a run of it.
        sides: all cases of both sides.
    """
    fields = dict(key.fields)
    setup = key.ignoring(*_KIND_FIELDS)
    kinds = [
        dict(other.fields)
        for groups in sides
        for other in groups
        if other.ignoring(*_KIND_FIELDS) == setup
    ]
    epochs = record.recipe.get("epochs")
    words = {
        "recipe.epochs": "1 epoch" if epochs == 1 else f"{epochs} epochs",
        "recipe.evaluation_split": f"{record.recipe.get('evaluation_split')} images",
        "division": record.division,
        "protocol.target_accuracy": f"target {target(record.protocol.target_accuracy)}",
        "protocol.stop_at_target": (
            "stopped at the target" if record.protocol.stop_at_target else "whole schedule"
        ),
    }
    differing = [
        word
        for field, word in words.items()
        if field in fields and any(fields[field] != kind.get(field) for kind in kinds)
    ]
    return printable(", ".join([setup_name(record), *differing]))


def _require_one_machine(side: RunSet, records: Sequence[RunRecord]) -> None:
    """A side's runs of one set-up are of one machine: what is unknown is not merged with the known.

    Raises:
        UsageError: they are not.
    """
    if len({MachineKey.of(record.environment) for record in records}) == 1:
        return
    facts = find_differences(
        [("machine", lambda r: MachineKey.of(r.environment).facts)], *[records] * 2
    )
    raise UsageError(
        f"{printable(side.name)} holds runs of {setup_name(records[0])} that are not of one "
        f"machine: {facts[0]}; name their folder, their files or their label"
    )


def setup_name(record: RunRecord) -> str:
    """``"fast, cpu, 1 process, 2 threads, bf16 amx"``."""
    label = labels.label_of_setup(record.setup)
    return printable(f"{recipe_name(record)}, {record.setup.device}, {label}")


def interleaved(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> bool:
    """Whether the sides took turns: in order of time, runs 1 and 2, 3 and 4, ... are of both."""
    if len(base) != len(new):
        return False
    new_ids = {record.run_id for record in new}
    ordered = sorted((*base, *new), key=lambda record: record.started_utc)
    is_new = [record.run_id in new_ids for record in ordered]
    return all(first != second for first, second in zip(is_new[::2], is_new[1::2], strict=True))


def _case(name: str, base_name: str, base: Sequence[RunRecord], new: Sequence[RunRecord]) -> Case:
    """Make a case.

    Raises:
        UsageError: the sides are incomparable.
    """
    if differences := find_differences(INCOMPARABLE, base, new):
        raise UsageError(f"{name}: cannot be compared: {differences[0]}")
    return Case(name, base_name, tuple(base), tuple(new))


def _kernel_lines(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> list[str]:
    """A line where the sides' kernels differ, which says what that means for the times."""
    meaning = ", so every ratio of times contains the code's difference"
    return [
        f"{line}{meaning if codes_differ(base, new) else ''}"
        for line in find_differences([KERNELS], base, new)
    ]


def _unfinished_lines(side: str, records: Sequence[RunRecord]) -> list[str]:
    lines = []
    incomplete = len(records) - len(metrics.completed(records))
    if incomplete:
        lines.append(f"{side}: {incomplete} of {len(records)} not completed in one go")
    benchmarks = group_runs((None, record) for record in records)
    if any(ResultWarning.RUNS_MISSING in benchmark.warnings for benchmark in benchmarks):
        lines.append(f"{side}: {ResultWarning.RUNS_MISSING}")
    return lines


def _warning_lines(side: str, records: Sequence[RunRecord]) -> list[str]:
    return [
        f"{side}, {count_of(count, 'run')}: {warning}"
        for warning, count in result_warnings.benchmark_warnings(records).items()
        if warning in _REMARKED_WARNINGS and count
    ]
