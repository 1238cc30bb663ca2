"""The check `plans`: every benchmark was planned before its first run, and no attempt is left out.

A plan names the plan and the record that lay in the folder before it, and a record names the record
that its process wrote before, each by its digest: what is deleted or edited breaks the chain.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bench.analysis import metrics
from bench.records import benchmark_plan
from bench.records.benchmark_plan import PLANNED_SINCE, BenchmarkPlan
from bench.records.folders import walk
from bench.records.machine_key import MachineKey
from bench.records.schema import RunRecord
from bench.text import count_of, printable
from bench.verify.checks import Check, CheckFinding, ResultsFolder

_KNOWN_LATER = {"captured", "uncaptured_reason", "fallbacks", "kernel_shapes"}
"""Fields of the set-up that the first run may change."""
_OF_A_PROCESS = {"launcher", "environment", "accelerate_config"}
"""Fields of the set-up that may be others in the process that resumes a benchmark."""
_CLOCK_TOLERANCE_SECONDS = 2.0
_RESUMING = ("--checkpoint-every", "--resume")


@dataclass(frozen=True, slots=True)
class PlanFile:
    """A plan and the digest of its file."""

    name: str
    sha256: str
    plan: BenchmarkPlan


@dataclass(frozen=True, slots=True)
class _Chain:
    """The plans and the records of one folder."""

    plans: Mapping[str, PlanFile]
    """Each plan by its digest, the oldest first."""
    records: Mapping[str, tuple[str, RunRecord]]
    """Each record that has or may need a plan, after its file's name, by the file's digest."""
    digests: frozenset[str]
    """Digests of all records' files."""

    def by_plan(self) -> dict[str, list[RunRecord]]:
        """The records that name each plan, by the plan's digest."""
        groups: dict[str, list[RunRecord]] = {digest: [] for digest in self.plans}
        for _, record in self.records.values():
            if record.plan is not None:
                groups.setdefault(record.plan.plan_sha256, []).append(record)
        return groups


def _find_plan_problems(folder: ResultsFolder) -> Iterator[CheckFinding]:
    for chain in _chains(folder):
        for name, record in chain.records.values():
            for problem in _record_problems(record, chain):
                yield CheckFinding(f"{name}: {printable(problem)}")
        yield from _chain_problems(chain)


def _chains(folder: ResultsFolder) -> Iterator[_Chain]:
    by_folder: dict[Path, list[tuple[Path, RunRecord]]] = {}
    for path, record in folder.contents.records:
        by_folder.setdefault(path.parent, []).append((path, record))
    for parent, _, names in walk(folder.path):
        if any(name.endswith(benchmark_plan.PLAN_SUFFIX) for name in names):
            by_folder.setdefault(parent, [])
    for parent, records in sorted(by_folder.items()):
        plans = _read_plans(folder, parent)
        if not plans and all(record.schema_version < PLANNED_SINCE for _, record in records):
            continue
        digests = {path: _digest(path) for path, _ in records}
        linked = {
            digests[path]: (folder.name(path), record)
            for path, record in records
            if record.schema_version >= PLANNED_SINCE
        }
        yield _Chain(plans, linked, frozenset(digests.values()))


def _read_plans(folder: ResultsFolder, parent: Path) -> dict[str, PlanFile]:
    plans = {}
    for path in benchmark_plan.plan_files(parent):
        with suppress(OSError, ValueError):  # the check of files reports what is no plan
            digest = benchmark_plan.file_sha256(path)
            plans[digest] = PlanFile(folder.name(path), digest, benchmark_plan.read_plan(path))
    return plans


def _digest(path: Path) -> str:
    try:
        return benchmark_plan.file_sha256(path)
    except OSError:
        return ""


def _record_problems(record: RunRecord, chain: _Chain) -> Iterator[str]:
    if record.plan is None:
        yield "it has no plan, and `run` writes one before it saves a record"
        return
    plan = chain.plans.get(record.plan.plan_sha256)
    if plan is None:
        yield "the plan that it names is not here"
        return
    for name, planned, actual in _planned_values(plan.plan, record):
        if planned != actual:
            yield f"its {name} is not what its plan says"
    early = (plan.plan.written_utc - record.started_utc).total_seconds()
    if early > _CLOCK_TOLERANCE_SECONDS:
        yield f"its plan was written {early:.0f} s after it started"
    yield from _order_problems(record, chain)


def _planned_values(plan: BenchmarkPlan, record: RunRecord) -> Iterator[tuple[str, object, object]]:
    """What the plan and the record say, by name."""
    environment = record.environment
    yield "benchmark", plan.benchmark_id, record.benchmark_id
    yield "recipe", plan.recipe, record.recipe
    yield "protocol", plan.protocol, record.protocol
    yield "seed", plan.first_seed + record.run_index - 1, record.seed
    yield "commit", (plan.commit, plan.dirty), (environment.commit, environment.dirty)
    yield "machine", plan.machine, MachineKey.of(environment).digest
    if environment.source_sha256 is not None:
        yield "source code", plan.source_sha256, environment.source_sha256
    # Another process may be started in another way, and goes on with the same computation.
    free = _KNOWN_LATER | (_OF_A_PROCESS if _is_resumable(record) else set())
    if len(record.setup.fallbacks) > len(plan.setup.fallbacks):
        free |= {"kernels"}
    yield "set-up", plan.setup.model_dump(exclude=free), record.setup.model_dump(exclude=free)


def _order_problems(record: RunRecord, chain: _Chain) -> Iterator[str]:
    """Whether the record follows the one that its process saved before."""
    assert record.plan is not None
    previous = record.plan.previous_sha256
    if previous is None:
        # Each process of --parallel-seeds has a first run of its own.
        if record.run_index > record.setup.parallel_seeds and not _is_resumable(record):
            yield f"run {record.run_index} names no record that its process saved before"
        return
    if previous not in chain.digests:
        yield "the record that its process saved before is not here, or was edited"
        return
    _, before = chain.records.get(previous, ("", record))
    if before.benchmark_id != record.benchmark_id or before.run_index >= record.run_index:
        yield "the record that it names as the one before is of no earlier run"


def _is_resumable(record: RunRecord) -> bool:
    """Whether several processes may have made the benchmark one after the other."""
    return record.restarted > 0 or any(word.startswith(_RESUMING) for word in record.command)


def _chain_problems(chain: _Chain) -> Iterator[CheckFinding]:
    """What is wrong with the plans themselves."""
    starts, by_plan = 0, chain.by_plan()
    for plan in chain.plans.values():
        previous, record = plan.plan.previous_plan_sha256, plan.plan.previous_record_sha256
        if not by_plan[plan.sha256]:
            yield CheckFinding(
                f"{plan.name}: {count_of(plan.plan.protocol.runs, 'run')} planned, and none is here"
            )
        if previous is None:
            starts += 1
        elif previous not in chain.plans:
            yield CheckFinding(f"{plan.name}: the plan before it is not here, or was edited")
        if record is not None and record not in chain.digests:
            yield CheckFinding(f"{plan.name}: the record before it is not here, or was edited")
    if starts > 1:
        yield CheckFinding(
            f"{starts} of its plans name no plan before them: whether one was left out is unknown",
            unknown=True,
        )


def _count_attempts(folder: ResultsFolder) -> Iterator[str]:
    """How many attempts were made at each set-up, and how many records tell nothing of them."""
    older = sum(record.schema_version < PLANNED_SINCE for _, record in folder.records)
    if older:
        yield (
            f"{older} of {count_of(len(folder.records), 'record')} without a plan, as they are "
            "older than version 8: whether attempts were left out is unknown"
        )
    for chain in _chains(folder):
        by_plan = chain.by_plan()
        ordered = sorted(chain.plans.values(), key=lambda plan: _attempt_key(plan.plan))
        for _, group in groupby(ordered, key=lambda plan: _attempt_key(plan.plan)):
            plans = list(group)
            complete = sum(_is_complete(plan, by_plan[plan.sha256]) for plan in plans)
            yield (
                f"{_setup_name(plans[0].plan)}: {count_of(len(plans), 'attempt')} at this set-up, "
                f"{complete} complete"
            )


def _attempt_key(plan: BenchmarkPlan) -> tuple[str, ...]:
    """Equal for plans of one set-up, with whatever seeds and runs and at whatever commit."""
    setup = plan.setup.model_dump_json(exclude=_KNOWN_LATER)
    recipe = repr(sorted(plan.recipe.items(), key=str))
    return recipe, setup, plan.machine or ""


def _is_complete(plan: PlanFile, records: list[RunRecord]) -> bool:
    """Whether all planned runs completed; --runs auto may stop before its largest number."""
    done = {record.run_index for record in metrics.completed(records)}
    auto = plan.plan.protocol.half_width is not None
    return bool(done) and (len(done) >= plan.plan.protocol.runs or auto)


def _setup_name(plan: BenchmarkPlan) -> str:
    setup = plan.setup
    name = printable(str(plan.recipe.get("name")))
    ranks = f"{count_of(setup.processes, 'process')}, {count_of(setup.threads, 'thread')}"
    together = f", {setup.parallel_seeds} at a time" if setup.parallel_seeds > 1 else ""
    return f"{name} on {setup.device}, {ranks}, {setup.precision} {setup.kernels}{together}"


PLANS = Check(
    "plans",
    "every benchmark was planned before its first run, and no attempt is left out or repeated",
    "Put back the missing records and plans, all attempts included. Where a run was killed before "
    "it could leave a record, say so in the pull request.",
    _find_plan_problems,
    _count_attempts,
)
