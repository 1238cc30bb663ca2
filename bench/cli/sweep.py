"""`mnist-bench sweep`: many set-ups, each run in a process of its own, to be gone on with."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import fmean
from typing import Annotated

import typer

from bench import text
from bench.cli.options import parse_duration
from bench.launch import matrix, single_run
from bench.launch.matrix import Matrix, Shard, SweepRun
from bench.machine.cores import usable_cores
from bench.measure.redaction import redact_paths
from bench.records import store, sweep_plan
from bench.records.schema import RunRecord, Status
from bench.records.store import RESULTS_DIR
from bench.text import count_of, printable
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED
from mnist_cnn.errors import UsageError

OURS = ("--runs", "--seed", "--label", "--quiet", "--no-save", "--profile", "--batch-size")
"""Options of `run` that are not the user's here."""


def sweep(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option(help="Recipes, as fast,reference.")] = None,
    device: Annotated[str | None, typer.Option(help="Devices, as cpu,cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precisions, as fp32,bf16.")] = None,
    kernels: Annotated[str | None, typer.Option(help="Kernels, as torch,avx512.")] = None,
    processes: Annotated[str | None, typer.Option(help="Process counts, as 1,2,4.")] = None,
    threads: Annotated[
        str | None, typer.Option(help="Threads of each process, as 1,2; with --scaling, one.")
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(help=f"How many, or which, as 0,7 (default: {matrix.DEFAULT_SEEDS})."),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(help="While processes are added: strong keeps the recipe, weak each batch."),
    ] = None,
    name: Annotated[str, typer.Option(help="What to call it: the label of its runs.")] = "sweep",
    order_seed: Annotated[
        int, typer.Option(help="Of the order of the runs, which is chance within each seed.")
    ] = 0,
    shard: Annotated[
        str, typer.Option(help="Run one part of several, as 2/4: for a job array.")
    ] = "1/1",
    budget: Annotated[
        str | None, typer.Option(help="Start no run that would not end within 90s, 10m or 1.5h.")
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the runs still to be made; make none.")
    ] = False,
    results_dir: Annotated[Path, typer.Option(help="Where records go.")] = RESULTS_DIR,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what became of each run as JSON.")
    ] = False,
) -> int:
    """Run every combination of the values given, in random order, each in a fresh process.

    MATRIX.toml has the same axes: recipe = ["fast"], processes = [1, 2], seeds = 5. What is given
    here too replaces the file's. Every other option goes to all runs. Asked for again, it goes on
    where it stopped: it makes the runs that are missing, and those that failed.
    """
    if not re.fullmatch(r"[\w.-]{1,80}", name):
        raise UsageError(f"--name takes letters, digits, dots and hyphens, not {printable(name)!r}")
    file, extra = _matrix_file(context.args)
    for word in extra:
        if word.split("=")[0] in OURS:
            raise UsageError(f"sweep sets {word.split('=')[0]} itself: leave it out")
    asked = {
        "recipe": recipe,
        "device": device,
        "precision": precision,
        "kernels": kernels,
        "processes": processes,
        "threads": threads,
        "seeds": seeds,
    }
    base = Matrix() if file is None else matrix.read_matrix(file)
    wanted = _with_threads(matrix.with_overrides(base, asked, scaling))
    part = matrix.parse_shard(shard)
    limit = None if budget is None else parse_duration(budget)
    cells = matrix.randomized_blocks(part.of(wanted.cells(extra)), order_seed)
    if not cells:
        raise UsageError(f"--shard {part}: there are fewer runs than that")
    _warn_of_waiting(wanted)
    plan = _Plan(name, results_dir, cells)
    plan.read()
    if dry_run:
        _print_plan(plan, part, order_seed, as_json)
        return 0
    store.check_writable(results_dir)
    _keep_order(plan, part, order_seed)
    interrupted = False
    try:
        _make(plan, limit)
    except KeyboardInterrupt:
        interrupted = True
        print("mnist-bench: interrupted; the same command goes on from here", file=sys.stderr)
    _conclude(plan, part, order_seed, as_json)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if plan.bad else 0


def _matrix_file(words: Sequence[str]) -> tuple[Path | None, Sequence[str]]:
    """The matrix, if the first word that is no option of `sweep` names one, and the other words.

    Not an argument of the command: there, unknown options would be taken for it.

    Raises:
        UsageError: it stands behind options that are `run`'s.
    """
    if words and not words[0].startswith("-"):
        return Path(words[0]), words[1:]
    for word in words:
        if word.endswith(".toml"):
            raise UsageError(f"put {printable(word)} first, before the options")
    return None, words


@dataclass(slots=True)
class _Plan:
    """The runs of this sweep, or of its shard, and what is known of each."""

    name: str
    results_dir: Path
    cells: Sequence[SweepRun]
    """In the order they are run."""
    records: dict[SweepRun, tuple[Path, RunRecord]] = field(default_factory=dict)
    """Of each cell that has one, the one that counts: a measurement before a failure, the last."""
    failed: dict[SweepRun, str] = field(default_factory=dict)
    """Why there is no record of a cell that was run here and now."""
    seconds: dict[SweepRun, float] = field(default_factory=dict)
    """That runs took which were made here and now."""

    def read(self) -> None:
        """Look for this sweep's records, of whatever session or machine."""
        if not self.results_dir.exists():
            return
        found = [
            one
            for one in store.read_records([self.results_dir]).records
            if one[1].label == self.name
        ]
        of = {tuple(map(redact_paths, cell.words)): cell for cell in self.cells}
        for path, record in sorted(found, key=lambda one: one[1].started_utc):
            cell = of.get(sweep_plan.sweep_options_of(record) or ())
            if cell is None or (cell in self.records and not _measured(record)):
                continue
            self.records[cell] = (path, record)

    def outcome(self, cell: SweepRun) -> str:
        """What became of it: a record's status, "failed", or "missing"."""
        if cell in self.records:
            return self.records[cell][1].status.value
        return "failed" if cell in self.failed else "missing"

    def is_done(self, cell: SweepRun) -> bool:
        """Whether it has been measured; a divergence is a result, and its seed's for good."""
        return cell in self.records and _measured(self.records[cell][1])

    @property
    def left(self) -> list[SweepRun]:
        """The cells to be run, those that failed before among them."""
        return [cell for cell in self.cells if not self.is_done(cell)]

    @property
    def bad(self) -> list[SweepRun]:
        """The cells that came to no good end, so far."""
        wrong = ("failed", "interrupted", "diverged")
        return [cell for cell in self.cells if self.outcome(cell) in wrong]

    def expected_seconds(self, cell: SweepRun) -> float | None:
        """How long it may take: as its set-up's other runs did, else as all; None before any."""
        own = [time for one, time in self.seconds.items() if one.options == cell.options]
        times = own or list(self.seconds.values())
        return fmean(times) if times else None

    def expected_left(self, cells: Sequence[SweepRun]) -> float | None:
        """Seconds until all of these are done; None before any was."""
        expected = [self.expected_seconds(cell) for cell in cells]
        known = [time for time in expected if time is not None]
        return sum(known) if len(known) == len(expected) else None

    def words(self, cell: SweepRun) -> list[str]:
        """The options of its run."""
        return [*cell.words, "--label", self.name, "--results-dir", str(self.results_dir)]


def _measured(record: RunRecord) -> bool:
    return record.status in (Status.COMPLETED, Status.DIVERGED)


def _with_threads(wanted: Matrix) -> Matrix:
    """For scaling, as many threads a process for every count; else only efficiency would differ.

    Raises:
        UsageError: several were given.
    """
    if wanted.scaling is None:
        return wanted
    if wanted.threads:
        return wanted
    threads = max(1, usable_cores() // max(wanted.processes))
    print(
        f"mnist-bench: {count_of(threads, 'thread')} a process, however many processes there are; "
        "another number with --threads",
        file=sys.stderr,
    )
    return matrix.with_overrides(wanted, {"threads": str(threads)}, None)


def _warn_of_waiting(wanted: Matrix) -> None:
    """Say which counts ask for more than the machine has, where it trains on the CPU."""
    cores = usable_cores()
    if set(wanted.device) <= {"cuda", "mps", "xpu"} and wanted.device:
        return
    counts = [
        (processes, threads)
        for processes in wanted.processes
        for threads in wanted.threads or (1,)
        if processes * threads > cores
    ]
    for processes, threads in counts:
        print(
            f"mnist-bench: warning: {count_of(processes, 'process')} of "
            f"{count_of(threads, 'thread')} on {count_of(cores, 'core')} wait for each other on a "
            "CPU; the report marks them",
            file=sys.stderr,
        )


def _make(plan: _Plan, budget_seconds: float | None) -> None:
    """Make the runs that are left, as far as the budget goes; one that fails stops no other."""
    left = plan.left
    _say(f"{count_of(len(plan.cells) - len(left), 'run')} of {len(plan.cells)} there already")
    started = time.monotonic()
    for number, cell in enumerate(left, start=1):
        spent = time.monotonic() - started
        if budget_seconds is not None and (
            spent + (plan.expected_seconds(cell) or 0.0) > budget_seconds
        ):
            _say(
                f"the budget of {text.seconds(budget_seconds)} is spent: "
                f"{count_of(len(left) - number + 1, 'run')} left; the same command goes on from "
                "here"
            )
            return
        _say(f"[{number}/{len(left)}] {printable(cell.name)}{_eta(plan, left[number - 1 :])}")
        begun = time.monotonic()
        status = single_run.run_once(plan.words(cell))
        plan.records.pop(cell, None)
        plan.read()
        if plan.is_done(cell):
            plan.seconds[cell] = time.monotonic() - begun
        elif status == 0:
            plan.failed[cell] = "it left no record that can be read"
        else:
            plan.failed[cell] = f"exit status {status}"
        if plan.outcome(cell) != Status.COMPLETED.value:
            _say(f"[{number}/{len(left)}] {plan.outcome(cell)}: {_reason(plan, cell)}")


def _eta(plan: _Plan, left: Sequence[SweepRun]) -> str:
    seconds = plan.expected_left(left)
    if seconds is None:
        return "; how long it takes is known after the first"
    return f"; about {text.seconds(seconds)} left"


def _reason(plan: _Plan, cell: SweepRun) -> str:
    record = plan.records[cell][1] if cell in plan.records else None
    return printable((record.reason if record is not None else None) or plan.failed.get(cell, ""))


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _keep_order(plan: _Plan, part: Shard, order_seed: int) -> None:
    """Keep in which order the runs are made: a line each time, beside the records.

    Raises:
        UsageError: it cannot be written.
    """
    ending = "" if part.count == 1 else f".{part.index}-of-{part.count}"
    now = sweep_plan.SweepPlanEntry(
        started_at=datetime.now(UTC).replace(microsecond=0),
        order_seed=order_seed,
        shard=str(part),
        runs=[[redact_paths(word) for word in cell.words] for cell in plan.left],
    )
    try:
        sweep_plan.append_sweep_plan(now, plan.name, ending, plan.results_dir)
    except OSError as error:
        raise UsageError(
            f"cannot write in {printable(str(plan.results_dir))}: {error.strerror}"
        ) from error


def _print_plan(plan: _Plan, part: Shard, order_seed: int, as_json: bool) -> None:
    if as_json:
        _print_json(plan, part, order_seed)
        return
    left = plan.left
    for cell in left:
        print(shlex.join(single_run.run_command(plan.words(cell))))
    done = len(plan.cells) - len(left)
    _say(f"{count_of(len(left), 'run')} to be made, {done} of {len(plan.cells)} there already")


def _conclude(plan: _Plan, part: Shard, order_seed: int, as_json: bool) -> None:
    if as_json:
        _print_json(plan, part, order_seed)
    done = sum(plan.outcome(cell) == Status.COMPLETED.value for cell in plan.cells)
    missing = sum(plan.outcome(cell) == "missing" for cell in plan.cells)
    _say(
        f"{done} of {count_of(len(plan.cells), 'run')} completed, {len(plan.bad)} went wrong, "
        f"{missing} not made yet"
    )
    for cell in plan.bad:
        _say(f"! {printable(cell.name)}: {plan.outcome(cell)}: {_reason(plan, cell)}")
    if done and not as_json:
        _say("see mnist-bench report, or report --scaling")


def _print_json(plan: _Plan, part: Shard, order_seed: int) -> None:
    """One object; the runs stand in the order in which they are made. ASCII only."""
    document = {
        "name": plan.name,
        "order_seed": order_seed,
        "shard": str(part),
        "runs": [
            {
                "options": list(cell.options),
                "seed": cell.seed,
                "outcome": plan.outcome(cell),
                "reason": _reason(plan, cell) or None,
                "seconds": plan.seconds.get(cell),
                "run_id": plan.records[cell][1].run_id if cell in plan.records else None,
                "command": single_run.run_command(plan.words(cell)),
            }
            for cell in plan.cells
        ],
    }
    sys.stdout.write(json.dumps(document, indent=2, allow_nan=False) + "\n")
