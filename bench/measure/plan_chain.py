"""Writes the plan of a benchmark before its first run, and links its records to it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from bench.machine.repository import PROJECT, source_digest
from bench.measure.request import RunRequest
from bench.measure.runner import protocol_values
from bench.records import benchmark_plan
from bench.records.benchmark_plan import BenchmarkPlan
from bench.records.machine_key import MachineKey
from bench.records.record_file import machine_name
from bench.records.schema import Environment, PlanLink, RunRecord, Setup
from mnist_cnn.errors import reason_of
from mnist_cnn.recipe import Recipe


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBenchmark:
    """What a plan says, before it is written."""

    benchmark_id: str
    recipe: Recipe
    request: RunRequest
    setup: Callable[[], Setup]
    """Gives the set-up as it is known when it is called."""
    environment: Environment


class PlanChain:
    """The plan of this process's benchmark, and the record that it saved last.

    Args:
        planned: what is going to be measured.
        results_dir: folder of the records.
    """

    def __init__(self, planned: PlannedBenchmark, results_dir: Path) -> None:
        self._planned = planned
        self._folder = results_dir / machine_name(planned.environment)
        self._plan_sha256: str | None = None
        self._last_sha256: str | None = None

    def write_plan(self) -> None:
        """Write the plan, unless another process of the benchmark has written it.

        Without a plan the benchmark goes on, and `verify` says that its records have none.
        """
        try:
            path = benchmark_plan.find_plan(self._folder, self._planned.benchmark_id)
            path = path or benchmark_plan.write_plan(self._make_plan(), self._folder)
            self._plan_sha256 = benchmark_plan.file_sha256(path)
        except OSError as error:
            print(
                f"mnist-bench: warning: the plan could not be written ({reason_of(error)}), so the "
                "records will have none",
                file=sys.stderr,
            )

    def link(self, record: RunRecord) -> RunRecord:
        """The record with its place in the chain; without one where there is no plan."""
        if self._plan_sha256 is None:
            return record
        link = PlanLink(plan_sha256=self._plan_sha256, previous_sha256=self._last_sha256)
        return record.model_copy(update={"plan": link})

    def add(self, path: Path) -> None:
        """Make a record that was just saved the one that the next record follows."""
        try:
            self._last_sha256 = benchmark_plan.file_sha256(path)
        except OSError:
            self._last_sha256 = None

    def _make_plan(self) -> BenchmarkPlan:
        planned, environment = self._planned, self._planned.environment
        request, machine = planned.request, MachineKey.of(environment).digest
        first_seed = request.protocol.first_seed
        return BenchmarkPlan(
            benchmark_id=planned.benchmark_id,
            written_at=_planned_at(request),
            recipe=planned.recipe.values(),
            protocol=protocol_values(request.protocol),
            seeds_rule=benchmark_plan.seeds_rule(first_seed, environment.commit, machine),
            first_seed=first_seed,
            setup=planned.setup(),
            machine=machine,
            commit=environment.commit,
            dirty=environment.dirty,
            source_sha256=environment.source_sha256 or source_digest(PROJECT),
            previous_plan_sha256=benchmark_plan.newest_plan_sha256(self._folder),
            previous_record_sha256=benchmark_plan.newest_record_sha256(self._folder),
        )


def _planned_at(request: RunRequest) -> datetime:
    """Now; with --parallel-seeds the time that all its processes were given, as they race."""
    if request.share is not None and request.share.planned_at:
        return datetime.fromisoformat(request.share.planned_at)
    return datetime.now(UTC)
