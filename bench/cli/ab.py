"""`mnist-bench ab`: compare two sides, interleaved, until it is clear which one is faster."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.app import check_run_options
from bench.cli.options import parse_share, reject_reserved
from bench.cli.output import notify
from bench.launch import ab as experiments
from bench.launch.ab import AbExperiment, RunFailed, Side
from bench.launch.checkout import find_checkout
from bench.machine.repository import PROJECT
from bench.records.folders import LOCAL_DIR
from bench.text import printable
from mnist_cnn.console import EXIT_FAILED, parse_path
from mnist_cnn.errors import UsageError
from mnist_cnn.whole_numbers import MOST_REPEATS, whole_number

if TYPE_CHECKING:
    from bench.analysis.comparison import Comparison

EXAMPLES = (
    (
        "Is bf16 faster than fp32 on this machine?",
        "mnist-bench ab --a '--precision fp32' --b '--precision bf16'",
    ),
    ("Is the working tree faster than the commit before?", "mnist-bench ab --a-commit HEAD~1"),
)


def ab(
    context: typer.Context,
    a: Annotated[str, typer.Option("--a", help="Options of `run` for side A, in quotes.")] = "",
    b: Annotated[str, typer.Option("--b", help="Options of `run` for side B, in quotes.")] = "",
    a_commit: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Commit for side A; it gets a worktree and an environment of its own (default: "
            "this checkout).",
            show_default=False,
        ),
    ] = None,
    b_commit: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Commit for side B, as above.", show_default=False),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(MOST_REPEATS),
            help="Run each side this many times and evaluate once at the end (default: until the "
            f"result is clear, at most {experiments.LOOKS[-1]}).",
            show_default=False,
        ),
    ] = None,
    wanted: Annotated[
        str, typer.Option(help="Also stop when a difference of this size is ruled out.")
    ] = "5%",
    name: Annotated[
        str, typer.Option(help="Name of the experiment; its runs are labelled NAME-a and NAME-b.")
    ] = "ab",
    results_dir: Annotated[
        Path, typer.Option(help="Folder for the records.", parser=parse_path)
    ] = LOCAL_DIR,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON instead of a table.")
    ] = False,
) -> int:
    """Run A and B in turn and compare them.

    The order within each round is random; each run has its own process. All other options go to
    every run of both sides. If the sides have equal options and commits, the command measures the
    noise floor of the machine and saves it beside the records.
    """
    if rounds is not None and rounds < 1:
        raise UsageError(f"--rounds must be at least 1, not {rounds}")
    difference = parse_share(wanted, "--wanted")
    if not 0 < difference < 1:
        raise UsageError(f"--wanted must lie between 0 % and 100 %, not {printable(wanted)!r}")
    experiment = AbExperiment(
        name=name,
        results_dir=results_dir,
        a=_side(a, "--a", a_commit),
        b=_side(b, "--b", b_commit),
        shared_options=tuple(context.args),
        looks=experiments.LOOKS if rounds is None else (rounds,),
        difference=difference,
    )
    for options in (experiment.shared_options, experiment.a.options, experiment.b.options):
        reject_reserved(options, experiments.RESERVED_OPTIONS, "ab")
    for side in experiment.sides.values():
        if side.checkout is None:  # a commit's own options are for the commit to check
            check_run_options((*experiment.shared_options, *side.options))
    if rounds is not None and rounds < experiments.FEWEST_ROUNDS:
        notify(
            f"--rounds {rounds}: times have a 95 % interval from {experiments.FEWEST_ROUNDS} "
            "rounds on"
        )
    experiments.prepare_commits(experiment, PROJECT, notify)
    try:
        comparison = experiments.run_experiment(experiment, notify)
    except RunFailed as error:
        notify(f"mnist-bench: {error}")
        return EXIT_FAILED
    _show(comparison, name, as_json)
    if experiment.measures_noise:
        _save_noise_floor(comparison, results_dir, as_json)
    return 0


def _side(quoted_options: str, option: str, revision: str | None) -> Side:
    """One side, from the values of its two options."""
    try:
        options = tuple(shlex.split(quoted_options))
    except ValueError as error:
        raise UsageError(f"{option} {printable(quoted_options)!r}: {error}") from error
    if revision is None:
        return Side(options, None)
    try:
        return Side(options, find_checkout(revision, PROJECT))
    except UsageError as error:
        raise UsageError(f"{option}-commit: {error}") from error


def _show(comparison: Comparison, name: str, as_json: bool) -> None:
    from bench.analysis.cases import CaseMatch
    from bench.report import terminal
    from bench.report.formats.comparisons import to_json

    match = CaseMatch((comparison.case,), (), ())
    if as_json:
        sys.stdout.write(to_json(f"{name}-a", [(f"{name}-b", match, [comparison], None)]))
    else:
        terminal.show(terminal.comparison(f"{name}-a", f"{name}-b", match, [comparison]))


def _save_noise_floor(comparison: Comparison, results_dir: Path, as_json: bool) -> None:
    floor = experiments.noise_floor(comparison)
    if floor is None:
        notify("too few rounds for a noise floor: leave --rounds out")
        return
    path = experiments.save_noise_floor(comparison, floor, results_dir)
    line = (
        f"noise floor: {100 * floor.relative:.1f} % (the larger end of the interval), in "
        f"{printable(str(path))}"
    )
    noise = experiments.machine_noise(floor, results_dir)
    if noise is not None:
        line += f"\n{noise}"
        if noise.between is None:
            line += "; measure it again in another session (an hour later, another day)"
    if as_json:
        notify(line)
    else:
        print(line)
