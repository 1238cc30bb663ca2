"""`mnist-bench run`: measure one benchmark on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, get_args

import typer

from bench.cli.dispatch import dispatch
from bench.cli.options import check_checkpoints, find_recipe, parse_accuracy, parse_run_count
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
from bench.report.trackers import TRACKERS, check_trackers
from mnist_cnn.console import parse_path
from mnist_cnn.help import completion, one_of
from mnist_cnn.recipe import DEVICES, RECIPES, Kernels, Pipeline, Precision, with_overrides
from mnist_cnn.whole_numbers import (
    LARGEST_SEED,
    MOST_EPOCHS,
    MOST_IMAGES,
    MOST_PROCESSES,
    MOST_REPEATS,
    MOST_THREADS,
    whole_number,
)

_TRAINING = "What is trained"
_COMPUTING = "How it is computed"
_RUN_COUNT = "How many runs"
_MACHINES = "Several machines"
_CHECKPOINTS = "Checkpoints"
_OUTPUT = "What is written"
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
            help=f"Recipe to train: {one_of(RECIPES)}, or auto for the device's fast one.",
            autocompletion=completion("auto", *RECIPES),
        ),
    ] = "auto",
    runs: Annotated[
        str,
        typer.Option(
            help="Number of measured runs, each from a new seed, or auto for as many as needed."
        ),
    ] = str(DEFAULT_RUNS),
    seed: Annotated[
        int,
        typer.Option(
            parser=whole_number(LARGEST_SEED),
            help="Seed of the first run; each next run adds 1.",
        ),
    ] = 0,
    device: Annotated[
        str,
        typer.Option(
            help=f"Device to train on: {one_of(('auto', *DEVICES))}.",
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
        typer.Option(
            parser=whole_number(MOST_THREADS),
            help="Number of threads of each process (default: its share of the cores).",
        ),
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
            parser=whole_number(MOST_EPOCHS),
            help="Number of epochs to stretch the recipe's schedule over. Of fast an epoch is a "
            "tenth of the images, but a single one is all of them.",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(MOST_IMAGES),
            help="Images per step over all processes, instead of the recipe's number; the learning "
            "rate is scaled with it (docs/sweep.md).",
            rich_help_panel=_TRAINING,
        ),
    ] = None,
    target_accuracy: Annotated[
        str, typer.Option(help="Accuracy to reach, as 99.4 or 0.994.", rich_help_panel=_TRAINING)
    ] = "99.4",
    stop_at_target: Annotated[
        bool,
        typer.Option(
            "--stop-at-target",
            help="End a run when it reaches the target.",
            rich_help_panel=_TRAINING,
        ),
    ] = False,
    precision: Annotated[
        str,
        typer.Option(
            help=f"Precision of matrix products: {one_of(('auto', *get_args(Precision)))}.",
            autocompletion=completion("auto", *get_args(Precision)),
            rich_help_panel=_COMPUTING,
        ),
    ] = "auto",
    kernels: Annotated[
        str,
        typer.Option(
            help=f"What computes a step: {one_of(('auto', *get_args(Kernels)))}.",
            autocompletion=completion("auto", *get_args(Kernels)),
            rich_help_panel=_COMPUTING,
        ),
    ] = "auto",
    capture: Annotated[
        bool | None,
        typer.Option(
            "--capture/--no-capture",
            help="Record whole steps as CUDA graphs (default: where possible).",
            rich_help_panel=_COMPUTING,
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(
            help=f"Data pipeline: {one_of(get_args(Pipeline))} (torchvision in a DataLoader, or "
            "all images on the device).",
            autocompletion=completion(*get_args(Pipeline)),
            rich_help_panel=_COMPUTING,
        ),
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder of MNIST (default: the user's cache folder).",
            parser=parse_path,
            rich_help_panel=_COMPUTING,
        ),
    ] = None,
    half_width: Annotated[
        str | None,
        typer.Option(
            help="With --runs auto: target half-width of the 95 % interval of the training time "
            "(default: 5%).",
            rich_help_panel=_RUN_COUNT,
        ),
    ] = None,
    max_runs: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(MOST_REPEATS),
            help=f"With --runs auto: largest number of runs (default: {MOST_RUNS}).",
            rich_help_panel=_RUN_COUNT,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="With --runs auto: longest time of all runs, as 90s, 10m or 1h, without start-up.",
            rich_help_panel=_RUN_COUNT,
        ),
    ] = None,
    parallel_seeds: Annotated[
        str | None,
        typer.Option(
            help="Number of runs at the same time, each in its own process, and on its own GPU "
            "where there are enough; auto is one per GPU, on a CPU one per --threads cores.",
            rich_help_panel=_RUN_COUNT,
        ),
    ] = None,
    machines: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(MOST_PROCESSES),
            help="Number of machines that train together; run this command on each.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    machine_rank: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(MOST_PROCESSES),
            help="Number of this machine, from 0; --main-address names machine 0.",
            rich_help_panel=_MACHINES,
        ),
    ] = None,
    main_address: Annotated[
        str | None,
        typer.Option(
            help="HOST:PORT at which the other machines reach machine 0.", rich_help_panel=_MACHINES
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(
            parser=whole_number(MOST_EPOCHS),
            help="Number of epochs between two checkpoints, from which a lost run can resume.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume an interrupted benchmark; repeat its other options.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = False,
    fall_back: Annotated[
        bool,
        typer.Option(
            "--fall-back",
            help="With --resume: use the previous checkpoint where one is damaged.",
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = False,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for checkpoints (default: .checkpoints in the results folder).",
            parser=parse_path,
            rich_help_panel=_CHECKPOINTS,
        ),
    ] = None,
    save: Annotated[
        bool,
        typer.Option(
            "--save/--no-save", help="Save a record of each run.", rich_help_panel=_OUTPUT
        ),
    ] = True,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help=f"Log all runs after the last one with {one_of(TRACKERS)}, locally and offline; "
            "may be repeated.",
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    track_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder for trackers (default: .trackers in the results folder).",
            parser=parse_path,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(
            help="Write a profiler trace of some steps to this file (JSON) instead of measuring.",
            parser=parse_path,
            rich_help_panel=_OUTPUT,
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            help="Print the launch command and exit without training.",
            rich_help_panel=_OUTPUT,
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
    # Before the recipe: which one "auto" is, only torch knows, and names are refused before that.
    compute = ComputeRequest(
        device=device,
        precision=precision,
        threads=(threads or share.threads) if share else threads,
        kernels=kernels,
        capture=capture,
    )
    ranks = RankRequest(
        processes=processes,
        machines=machines,
        machine_rank=machine_rank,
        main_address=main_address,
    )
    request = RunRequest(
        command=tuple(context.obj),
        recipe=with_overrides(find_recipe(recipe, device), epochs, pipeline, batch_size),
        protocol=protocol,
        compute=compute,
        ranks=ranks,
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
    return dispatch(request, check_trackers(track or [], track_dir, results_dir, profile))
