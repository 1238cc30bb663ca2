"""A sweep: its runs in order, which of them are done, and the processes that make the others.

A sweep can be continued: a run is done if its record is in the results folder, whenever and on
whichever machine it was made.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean

from bench import text
from bench.launch import matrix, single_run
from bench.launch.matrix import Matrix, Shard, SweepRun
from bench.launch.single_run import Notify
from bench.machine.cores import usable_cores
from bench.records import store, sweep_plan
from bench.records.schema import RunRecord, Status
from bench.stats.sums import exact_sum
from bench.text import count_of, printable
from mnist_cnn.disk import refusal_of
from mnist_cnn.errors import UsageError
from mnist_cnn.failure import redact_paths

RESERVED_OPTIONS = (
    "--runs",
    "--seed",
    "--label",
    "--quiet",
    "--no-save",
    "--profile",
    "--batch-size",
)
"""Options of `run` that `sweep` does not pass on, since it sets them or cannot work with them."""
MISSING = "missing"
"""Outcome of a run that has not been made yet."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepPlan:
    """The runs of a sweep, or of one shard of it."""

    name: str
    """Name of the sweep: the label of its runs."""
    results_dir: Path
    """Folder of the records."""
    runs: tuple[SweepRun, ...]
    """The runs in the order in which they are made."""
    shard: Shard
    """The part of the sweep that these runs are."""
    order_seed: int
    """Seed of the random order."""

    @classmethod
    def of(
        cls,
        runs: Sequence[SweepRun],
        shard: Shard,
        order_seed: int,
        *,
        name: str,
        results_dir: Path,
    ) -> SweepPlan:
        """The plan for one shard of all runs.

        Raises:
            UsageError: the shard has no runs.
        """
        ordered = matrix.randomized_blocks(shard.select(runs), order_seed)
        if not ordered:
            raise UsageError(f"shard {shard} has no runs: the sweep has {len(runs)}")
        return cls(
            name=name,
            results_dir=results_dir,
            runs=tuple(ordered),
            shard=shard,
            order_seed=order_seed,
        )

    def command(self, run: SweepRun) -> list[str]:
        """The command line that makes a run."""
        return single_run.run_command(self.options(run))

    def options(self, run: SweepRun) -> list[str]:
        """All options of `run` for one run of the sweep."""
        return [*run.options, "--label", self.name, "--results-dir", str(self.results_dir)]

    def read_records(self) -> dict[SweepRun, RunRecord]:
        """Each run's record: the last that completed or diverged, else its first record."""
        if not self.results_dir.exists():
            return {}
        labelled = [
            record
            for _, record in store.read_records([self.results_dir]).records
            if record.label == self.name
        ]
        run_by_options = {tuple(map(redact_paths, run.options)): run for run in self.runs}
        records: dict[SweepRun, RunRecord] = {}
        for record in sorted(labelled, key=lambda record: record.started_utc):
            run = run_by_options.get(sweep_plan.sweep_options_of(record) or ())
            if run is not None and (run not in records or _completed_or_diverged(record)):
                records[run] = record
        return records


@dataclass(slots=True)
class SweepState:
    """What is known so far of each run of a sweep."""

    plan: SweepPlan
    records: dict[SweepRun, RunRecord] = field(default_factory=dict)
    """The record of each run that has one."""
    failures: dict[SweepRun, str] = field(default_factory=dict)
    """Why a run that this process started left no usable record."""
    seconds: dict[SweepRun, float] = field(default_factory=dict)
    """Duration of each run that this process started and that is done, start-up included."""

    def outcome(self, run: SweepRun) -> str:
        """The status in the run's record, else "failed" or "missing"."""
        if run in self.records:
            return self.records[run].status.value
        return Status.FAILED.value if run in self.failures else MISSING

    def reason(self, run: SweepRun) -> str:
        """Why a run did not complete; empty if that is not known."""
        record = self.records.get(run)
        reason = record.reason if record is not None else None
        return printable(reason or self.failures.get(run, ""))

    def is_done(self, run: SweepRun) -> bool:
        """Whether the run completed or diverged: with the same seed, it would diverge again."""
        return run in self.records and _completed_or_diverged(self.records[run])

    @property
    def pending(self) -> list[SweepRun]:
        """The runs to be made, earlier failures included."""
        return [run for run in self.plan.runs if not self.is_done(run)]

    @property
    def unsuccessful(self) -> list[SweepRun]:
        """The runs that failed, diverged or were interrupted."""
        not_counted = (Status.COMPLETED.value, MISSING)
        return [run for run in self.plan.runs if self.outcome(run) not in not_counted]

    def count(self, outcome: str) -> int:
        """Number of runs with this outcome."""
        return sum(self.outcome(run) == outcome for run in self.plan.runs)

    def expected_seconds(self, run: SweepRun) -> float | None:
        """Mean duration of the set-up's runs, else of all runs; None before the first one."""
        same_setup = [
            seconds
            for other, seconds in self.seconds.items()
            if other.setup_options == run.setup_options
        ]
        durations = same_setup or list(self.seconds.values())
        return fmean(durations) if durations else None

    def time_left(self, runs: Sequence[SweepRun]) -> str:
        """How long these runs will take, for people."""
        expected = [self.expected_seconds(run) for run in runs]
        known = [seconds for seconds in expected if seconds is not None]
        if len(known) < len(expected):
            return "time left unknown until the first run ends"
        return f"about {text.seconds(exact_sum(known))} left"


def _completed_or_diverged(record: RunRecord) -> bool:
    return record.status in (Status.COMPLETED, Status.DIVERGED)


def share_cores(wanted: Matrix, notify: Notify) -> Matrix:
    """For a scaling study, give every process the same number of threads at every process count.

    Otherwise a single process would use all cores, and more processes could not be faster.
    """
    if wanted.scaling is None or wanted.threads:
        return wanted
    threads = max(1, usable_cores() // max(wanted.processes))
    notify(
        f"mnist-bench: {count_of(threads, 'thread')} per process at every process count; "
        "set another number with --threads"
    )
    return matrix.with_overrides(wanted, {"threads": str(threads)}, None)


def warn_of_oversubscription(wanted: Matrix, notify: Notify) -> None:
    """Name the set-ups that need more cores than the machine has, if they may train on the CPU."""
    if wanted.device and set(wanted.device) <= {"cuda", "mps", "xpu"}:
        return
    cores = usable_cores()
    for processes in wanted.processes:
        for threads in wanted.threads or (1,):
            if processes * threads > cores:
                notify(
                    f"mnist-bench: warning: {count_of(processes, 'process')} with "
                    f"{count_of(threads, 'thread')} each share {count_of(cores, 'core')}: on a "
                    "CPU they wait for each other, and the report marks them"
                )


def append_plan(state: SweepState) -> None:
    """Add the pending runs, in order, to the plan file beside the records.

    Raises:
        UsageError: the file cannot be written.
    """
    plan = state.plan
    suffix = "" if plan.shard.count == 1 else f".{plan.shard.index}-of-{plan.shard.count}"
    entry = sweep_plan.SweepPlanEntry(
        started_at=datetime.now(UTC).replace(microsecond=0),
        order_seed=plan.order_seed,
        shard=str(plan.shard),
        runs=[[redact_paths(word) for word in run.options] for run in state.pending],
    )
    try:
        sweep_plan.append_sweep_plan(entry, plan.name, suffix, plan.results_dir)
    except OSError as error:
        raise UsageError(
            f"cannot write in {printable(str(plan.results_dir))}: {refusal_of(error)}"
        ) from error


def make_runs(state: SweepState, budget_seconds: float | None, notify: Notify) -> None:
    """Make the pending runs within the budget, and update `state` after each.

    A run that fails does not stop the others, unless the results folder takes no more records.

    Args:
        state: the plan, and the records read from the results folder.
        budget_seconds: start no run that would end later than this; None for no limit.
        notify: gets a line before each run and after each failure.

    Raises:
        KeyboardInterrupt: the sweep or a run was interrupted; `state` holds the earlier runs.
    """
    pending = state.pending
    total = len(state.plan.runs)
    notify(f"{total - len(pending)} of {count_of(total, 'run')} already done")
    started = time.monotonic()
    for index, run in enumerate(pending):
        elapsed = time.monotonic() - started
        expected_end = elapsed + (state.expected_seconds(run) or 0.0)
        if budget_seconds is not None and expected_end > budget_seconds:
            notify(
                f"the budget of {text.seconds(budget_seconds)} is spent: "
                f"{count_of(len(pending) - index, 'run')} left; run the same command again to "
                "continue"
            )
            return
        number = f"[{index + 1}/{len(pending)}]"
        notify(f"{number} {printable(run.name)}; {state.time_left(pending[index:])}")
        _make_run(state, run)
        if state.outcome(run) != Status.COMPLETED.value:
            notify(f"{number} {state.outcome(run)}: {state.reason(run)}")
        if not state.is_done(run) and (problem := _saving_problem(state)) is not None:
            notify(f"{problem}; {count_of(len(pending) - index - 1, 'run')} left")
            return


def _saving_problem(state: SweepState) -> str | None:
    """Why the results folder takes no more records; None where it does."""
    try:
        store.check_writable(state.plan.results_dir)
    except UsageError as error:
        return str(error)
    return None


def _make_run(state: SweepState, run: SweepRun) -> None:
    started = time.monotonic()
    status = single_run.run_once(state.plan.options(run))
    state.records = state.plan.read_records()
    if state.is_done(run):
        state.seconds[run] = time.monotonic() - started
    elif status == 0:
        state.failures[run] = "it left no record that can be read"
    else:
        state.failures[run] = f"exit status {status}"
