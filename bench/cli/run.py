"""`mnist-bench run`: measure one benchmark on this machine."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import Annotated, get_args

import typer

from bench.cli.options import check_checkpoints, find_recipe, parse_accuracy, parse_run_count
from bench.cli.output import choose_progress, get_data, print_runs
from bench.launch.parallel_seeds import (
    check_parallel_seeds,
    plan_shares,
    run_shares,
    share_commands,
)
from bench.launch.ranks import check_launched_ranks, launch_command, plan_ranks, start_ranks
from bench.launch.result import BenchmarkResult
from bench.measure.guard_folder import note_writer
from bench.measure.request import (
    CHECKPOINTS_DIR,
    CheckpointRequest,
    ComputeRequest,
    OutputRequest,
    RankRequest,
    RunRequest,
)
from bench.measure.seed_share import SeedShare
from bench.records.folders import LOCAL_DIR
from bench.records.protocol import DEFAULT_RUNS, MOST_RUNS, BenchmarkProtocol
from bench.records.store import check_writable, gc_paused
from bench.report.trackers import TRACKERS, TrackerRequest, check_trackers, log_to_trackers
from mnist_cnn.console import parse_path
from mnist_cnn.errors import UsageError
from mnist_cnn.help import completion, names
from mnist_cnn.rank import Rank, is_launched
from mnist_cnn.recipe import DEVICES, RECIPES, Kernels, Pipeline, Precision, with_overrides
from mnist_cnn.user_folders import temporary_folder

TRAINING = "What is trained"
COMPUTING = "How it is computed"
NUMBER = "How many runs"
MACHINES = "Several machines"
CHECKPOINTS = "Checkpoints"
OUTPUT = "What is written"
"""Headings of the options that fewer people need."""
EXAMPLES = (
    (
        "Five runs of the device's fast recipe, to be compared by their label.",
        "mnist-bench run --runs 5 --label before",
    ),
    (
        "The reference recipe by torch's operators, in the best number of processes.",
        "mnist-bench run --recipe reference --kernels torch --processes auto",
    ),
)


def run(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Option(
            help=f"Recipe to train: {names(RECIPES)}, or auto for the device's fast one.",
            autocompletion=completion("auto", *RECIPES),
        ),
    ] = "auto",
    runs: Annotated[
        str,
        typer.Option(
            help="Number of measured runs, each from a new seed, or auto for as many as needed."
        ),
    ] = str(DEFAULT_RUNS),
    seed: Annotated[int, typer.Option(help="Seed of the first run; each next run adds 1.")] = 0,
    device: Annotated[
        str,
        typer.Option(
            help=f"Device to train on: {names(('auto', *DEVICES))}.",
            autocompletion=completion("auto", *DEVICES),
        ),
    ] = "auto",
    processes: Annotated[
        str | None,
        typer.Option(
            help="Number of processes that train together, over all machines, or auto for the "
            "fastest number here (default: one)."
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Number of threads of each process (default: its share of the cores)."),
    ] = None,
    label: Annotated[
        str | None, typer.Option(help="Label for filtering and comparing these runs.")
    ] = None,
    results_dir: Annotated[
        Path, typer.Option(help="Folder for the records.", parser=parse_path)
    ] = LOCAL_DIR,
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show no progress, only the table and failures.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the runs as JSON instead of a table.")
    ] = False,
    epochs: Annotated[
        int | None,
        typer.Option(
            help="Number of epochs to stretch the recipe's schedule over. Of fast an epoch is a "
            "tenth of the images, but a single one is all of them.",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images per step over all processes, instead of the recipe's number; the learning "
            "rate is scaled with it (docs/sweep.md).",
            rich_help_panel=TRAINING,
        ),
    ] = None,
    target_accuracy: Annotated[
        str, typer.Option(help="Accuracy to reach, as 99.4 or 0.994.", rich_help_panel=TRAINING)
    ] = "99.4",
    stop_at_target: Annotated[
        bool,
        typer.Option(
            "--stop-at-target",
            help="End a run when it reaches the target.",
            rich_help_panel=TRAINING,
        ),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            help=f"Precision of matrix products: {names(('auto', *get_args(Precision)))}.",
            autocompletion=completion("auto", *get_args(Precision)),
            rich_help_panel=COMPUTING,
        ),
    ] = "auto",
    kernels: Annotated[
        str,
        typer.Option(
            help=f"What computes a step: {names(('auto', *get_args(Kernels)))}.",
            autocompletion=completion("auto", *get_args(Kernels)),
            rich_help_panel=COMPUTING,
        ),
    ] = "auto",
    capture: Annotated[
        bool | None,
        typer.Option(
            "--capture/--no-capture",
            help="Record whole steps as CUDA graphs (default: where possible).",
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            help="Data pipeline: loader (torchvision in a DataLoader) or resident (on the device).",
            autocompletion=completion(*get_args(Pipeline)),
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of MNIST (default: the user's cache folder).",
            parser=parse_path,
            rich_help_panel=COMPUTING,
        ),
    ] = None,
    half_width: Annotated[
        str | None,
        typer.Option(
            help="With --runs auto: target half-width of the 95 % interval of the training time "
            "(default: 5%).",
            rich_help_panel=NUMBER,
        ),
    ] = None,
    max_runs: Annotated[
        int | None,
        typer.Option(
            help=f"With --runs auto: largest number of runs (default: {MOST_RUNS}).",
            rich_help_panel=NUMBER,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="With --runs auto: longest time of all runs, as 90s, 10m or 1h, without start-up.",
            rich_help_panel=NUMBER,
        ),
    ] = None,
    parallel_seeds: Annotated[
        str | None,
        typer.Option(
            help="Number of runs at the same time, each in its own process, and on its own GPU "
            "where there are enough; auto is one per GPU, on a CPU one per --threads cores.",
            rich_help_panel=NUMBER,
        ),
    ] = None,
    machines: Annotated[
        int | None,
        typer.Option(
            help="Number of machines that train together; run this command on each.",
            rich_help_panel=MACHINES,
        ),
    ] = None,
    machine_rank: Annotated[
        int | None,
        typer.Option(
            help="Number of this machine, from 0; --main-address names machine 0.",
            rich_help_panel=MACHINES,
        ),
    ] = None,
    main_address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT at which the other machines reach machine 0.", rich_help_panel=MACHINES
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            help="Number of epochs between two checkpoints, from which a lost run can resume.",
            rich_help_panel=CHECKPOINTS,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume an interrupted benchmark; repeat its other options.",
            rich_help_panel=CHECKPOINTS,
        ),
    ] = False,
    fall_back: Annotated[
        bool,
        typer.Option(
            "--fall-back",
            help="With --resume: use the previous checkpoint where one is damaged.",
            rich_help_panel=CHECKPOINTS,
        ),
    ] = False,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints (default: .checkpoints in the results folder).",
            parser=parse_path,
            rich_help_panel=CHECKPOINTS,
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option("--save/--no-save", help="Save a record of each run.", rich_help_panel=OUTPUT),
    ] = True,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Log all runs after the last one with {names(TRACKERS)}, locally and offline; "
            "may be repeated.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    track_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for trackers (default: .trackers in the results folder).",
            parser=parse_path,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Write a profiler trace of some steps to this file (JSON) instead of measuring.",
            parser=parse_path,
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the launch command and exit without training.",
            rich_help_panel=OUTPUT,
        ),
    ] = False,
) -> int:
    """Train N times from random weights and report the time to 99.4 %."""
    # torch reads this when it is imported. A CPU fallback in an MPS run would be timed as the GPU.
    os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = "0"
    protocol = BenchmarkProtocol(
        first_seed=seed,
        target_accuracy=parse_accuracy(target_accuracy),
        stop_at_target=stop_at_target,
        **parse_run_count(runs, half_width, max_runs, budget),
    )
    share = None if parallel_seeds is None else SeedShare.from_environment()
    request = RunRequest(
        command=tuple(context.obj),
        recipe=with_overrides(find_recipe(recipe, device), epochs, pipeline, batch_size),
        protocol=protocol,
        compute=ComputeRequest(
            device=device,
            precision=precision,
            threads=(threads or share.threads) if share else threads,
            kernels=kernels,
            capture=capture,
        ),
        ranks=RankRequest(
            processes=processes,
            machines=machines,
            machine_rank=machine_rank,
            main_address=main_address,
        ),
        checkpoints=check_checkpoints(
            CheckpointRequest(
                folder=checkpoint_dir or results_dir / CHECKPOINTS_DIR,
                results_dir=results_dir,
                every=checkpoint_every,
                resume=resume,
                fall_back=fall_back,
            ),
            {"--no-save": not save, "--profile": profile is not None},
            has_folder=checkpoint_dir is not None,
        ),
        output=OutputRequest(
            results_dir=results_dir if save else None, label=label, quiet=quiet, as_json=as_json
        ),
        data_dir=data_dir,
        parallel_seeds=parallel_seeds,
        profile=profile,
        dry_run=dry_run,
        share=share,
    )
    return _dispatch(request, check_trackers(track or [], track_dir, results_dir, profile))


def _dispatch(request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Start other processes, or measure in this one."""
    if not hasattr(os, "fork"):  # nor are there the other calls that a measurement needs
        raise UsageError(
            "benchmarks do not run on Windows itself: run them in WSL 2 (Windows Subsystem for "
            "Linux); report, compare and verify work here"
        )
    if request.parallel_seeds is not None:
        check_parallel_seeds(request, is_rank=is_launched())
        if request.share is None:
            return _run_in_parallel(request, trackers)
    if is_launched():
        check_launched_ranks(request.ranks)
        if request.dry_run:
            raise UsageError("--dry-run shows how processes are started, and these are already")
    elif request.share is None:
        plan = plan_ranks(request)
        if request.dry_run:
            print(launch_command(request, plan))
            return 0
        if plan.here is not None:
            return start_ranks(request, plan)
    if request.profile is not None:
        return _profile(request)
    return _run_here(request, trackers)


def _run_here(request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Measure in this process."""
    is_main = Rank.from_environment().is_main
    if is_main:
        _check_outputs(request, trackers)
    silent = request.output.silent
    progress = choose_progress(is_main=is_main, silent=silent, alone=request.share is None)
    # Lazy: torch is slow to import, and bad input is refused before.
    with gc_paused():
        from bench.launch.local_run import run_locally

    # What was imported stays to the end. So no collection of garbage goes through all of torch,
    # neither in a measurement nor when the interpreter ends, which would take a second. Triton's
    # binding would complain at that end of what was frozen; it is imported later, where it is.
    if "triton" not in sys.modules:
        gc.freeze()

    result = run_locally(
        request, progress, lambda: get_data(request.data_dir, silent or not is_main)
    )
    has_parent = request.share is not None and bool(request.share.records)
    if not is_main or has_parent:
        result.note_printed()
        return result.status
    return _finish(result, request, trackers)


def _run_in_parallel(request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Let other processes make the runs, and print their results."""
    with temporary_folder() as folder:
        plan = plan_shares(request, "" if request.dry_run else str(folder))
        if request.dry_run:
            print(share_commands(request.command, plan))
            return 0
        _check_outputs(request, trackers)
        get_data(request.data_dir, request.output.silent)
        result = run_shares(request.command, plan, request.output.results_dir)
    return _finish(result, request, trackers)


def _profile(request: RunRequest) -> int:
    from bench.measure.profiling import profile_warm_up

    report = profile_warm_up(request, lambda silent: get_data(request.data_dir, silent))
    if report is not None:
        print(report)
    return 0


def _check_outputs(request: RunRequest, trackers: TrackerRequest | None) -> None:
    """Refuse folders that cannot be written to, before anything is trained."""
    if request.output.results_dir is not None:
        note_writer(request.output.results_dir)
        check_writable(request.output.results_dir)
    if trackers is not None:
        trackers.check_writable()


def _finish(result: BenchmarkResult, request: RunRequest, trackers: TrackerRequest | None) -> int:
    """Print the runs and log them with the trackers.

    Returns:
        The exit status.
    """
    if not result.runs:
        return result.status
    try:
        print_runs(result, as_json=request.output.as_json)
        sys.stdout.flush()
    finally:  # a full disk refuses what the guardian would print, too
        result.note_printed()
    if trackers is None:
        return result.status
    quiet = request.output.quiet
    return max(result.status, log_to_trackers(result.records, request.recipe, trackers, quiet))
