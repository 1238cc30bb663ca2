"""`mnist-bench sweep`: many set-ups, each run in its own process; a sweep can be continued."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.app import check_run_options
from bench.cli.options import parse_duration, reject_reserved
from bench.cli.output import notify
from bench.launch import matrix, sweep as sweeps
from bench.launch.matrix import Matrix
from bench.launch.sweep import MISSING, SweepPlan, SweepState
from bench.records import store
from bench.records.folders import LOCAL_DIR
from bench.records.schema import Status
from bench.text import count_of, printable
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED, parse_path
from mnist_cnn.errors import UsageError
from mnist_cnn.escaping import printable_command
from mnist_cnn.whole_numbers import LARGEST_SEED, whole_number

EXAMPLES = (
    (
        "One and two processes, five seeds each, in random order.",
        "mnist-bench sweep --processes 1,2 --seeds 5",
    ),
    (
        "Does it scale, at the same global batch size?",
        "mnist-bench sweep --processes 1,2 --scaling strong",
    ),
)


def sweep(
    context: typer.Context,
    recipe: Annotated[str | None, typer.Option(help="Recipes, such as fast,reference.")] = None,
    device: Annotated[str | None, typer.Option(help="Devices, such as cpu,cuda.")] = None,
    precision: Annotated[str | None, typer.Option(help="Precisions, such as fp32,bf16.")] = None,
    kernels: Annotated[str | None, typer.Option(help="Kernels, such as torch,avx2.")] = None,
    processes: Annotated[
        str | None, typer.Option(help="Numbers of processes, such as 1,2,4.")
    ] = None,
    threads: Annotated[
        str | None,
        typer.Option(
            help="Numbers of threads of each process, such as 1,2; with --scaling, one number."
        ),
    ] = None,
    seeds: Annotated[
        str | None,
        typer.Option(
            help="Number of seeds, or the seeds themselves, such as 0,7 "
            f"(default: {matrix.DEFAULT_SEEDS} seeds)."
        ),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(
            help="Batch size as processes are added: strong keeps the global batch size, weak "
            "keeps the batch size per process."
        ),
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the sweep and label of its runs.")] = "sweep",
    order_seed: Annotated[
        int, typer.Option(parser=whole_number(LARGEST_SEED), help="Seed of the random run order.")
    ] = 0,
    shard: Annotated[
        str, typer.Option(help="Part of the sweep to run, such as 2/4 (for a job array).")
    ] = "1/1",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Start no run that would end after 90s, 10m or 1.5h (default: no limit)."
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the commands of the missing runs and exit.")
    ] = False,
    results_dir: Annotated[
        Path, typer.Option(help="Folder for the records.", parser=parse_path)
    ] = LOCAL_DIR,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the outcome of each run as JSON.")
    ] = False,
) -> int:
    """Run all combinations of the given values, in random order.

    Each run has its own process. MATRIX.toml holds the same axes: recipe = ["fast"], processes =
    [1, 2], seeds = 5. Options replace the values of the file. All other options go to every run.
    Run the same command again to continue: it makes the runs that are missing or failed.
    """
    if not re.fullmatch(r"[\w.-]{1,80}", name):
        raise UsageError(f"--name takes letters, digits, dots and hyphens, not {printable(name)!r}")
    file, shared_options = _split_matrix_file(context.args)
    reject_reserved(shared_options, sweeps.RESERVED_OPTIONS, "sweep")
    check_run_options(shared_options)
    overrides = {
        "recipe": recipe,
        "device": device,
        "precision": precision,
        "kernels": kernels,
        "processes": processes,
        "threads": threads,
        "seeds": seeds,
    }
    base = Matrix() if file is None else matrix.read_matrix(file)
    part = matrix.parse_shard(shard)
    budget_seconds = None if budget is None else parse_duration(budget)
    wanted = sweeps.share_cores(matrix.with_overrides(base, overrides, scaling), notify)
    runs = wanted.runs(shared_options)
    plan = SweepPlan.of(runs, part, order_seed, name=name, results_dir=results_dir)
    sweeps.warn_of_oversubscription(wanted, notify)
    state = SweepState(plan, plan.read_records())
    if dry_run:
        print(_to_json(state) if as_json else printable_command(_commands(state)), end="")
        return 0
    store.check_writable(results_dir)
    sweeps.append_plan(state)
    interrupted = False
    try:
        sweeps.make_runs(state, budget_seconds, notify)
    except KeyboardInterrupt:
        interrupted = True
        notify("mnist-bench: interrupted; run the same command again to continue")
    if as_json:
        print(_to_json(state), end="")
    _summarize(state, as_json)
    if interrupted:
        return EXIT_INTERRUPTED
    return EXIT_FAILED if state.unsuccessful else 0


def _split_matrix_file(words: Sequence[str]) -> tuple[Path | None, Sequence[str]]:
    """The matrix file, if the first word names one, and the options for `run`.

    The file is not an argument of the command: Typer would take an unknown option for it.

    Raises:
        UsageError: the file stands after options of `run`.
    """
    if words and not words[0].startswith("-"):
        return Path(words[0]), words[1:]
    for word in words:
        if word.endswith(".toml"):
            raise UsageError(f"put {printable(word)} first, before the options")
    return None, words


def _commands(state: SweepState) -> str:
    """The commands of the runs to be made, one per line."""
    pending, total = state.pending, len(state.plan.runs)
    notify(
        f"{count_of(len(pending), 'run')} to be made; {total - len(pending)} of "
        f"{count_of(total, 'run')} already done"
    )
    return "".join(f"{shlex.join(state.plan.command(run))}\n" for run in pending)


def _summarize(state: SweepState, as_json: bool) -> None:
    completed = state.count(Status.COMPLETED.value)
    notify(
        f"{completed} of {count_of(len(state.plan.runs), 'run')} completed, "
        f"{len(state.unsuccessful)} unsuccessful, {state.count(MISSING)} not made yet"
    )
    for run in state.unsuccessful:
        notify(f"! {printable(run.name)}: {state.outcome(run)}: {state.reason(run)}")
    if completed and not as_json:
        folder = shlex.quote(str(state.plan.results_dir))
        notify(
            f"to see the results: mnist-bench report {folder}, or mnist-bench report {folder} "
            "--scaling"
        )


def _to_json(state: SweepState) -> str:
    """One object, with the runs in the order in which they are made. ASCII only."""
    plan = state.plan
    document = {
        "name": plan.name,
        "order_seed": plan.order_seed,
        "shard": str(plan.shard),
        "runs": [
            {
                "options": list(run.setup_options),
                "seed": run.seed,
                "outcome": state.outcome(run),
                "reason": state.reason(run) or None,
                "seconds": state.seconds.get(run),
                "run_id": state.records[run].run_id if run in state.records else None,
                "command": plan.command(run),
            }
            for run in plan.runs
        ],
    }
    return json.dumps(document, indent=2, allow_nan=False) + "\n"
