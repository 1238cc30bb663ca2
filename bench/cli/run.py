"""`mnist-bench run`: one benchmark here."""

from __future__ import annotations

import os
import re
import sys
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypedDict

import typer

from bench.cli.options import check_keeping, parse_duration, parse_share
from bench.cli.output import choose_progress, get_data
from bench.launch import supervisor
from bench.launch.parallel_seeds import (
    check_parallel_seeds,
    leave_record,
    plan_shares,
    run_shares,
    share_commands,
    temporary_folder,
)
from bench.launch.ranks import check_launched_ranks, launch_command, plan_ranks, start_ranks
from bench.measure.interruption import Interruption
from bench.measure.request import Wish
from bench.measure.seed_share import mine
from bench.measure.session import measure_benchmark
from bench.records.protocol import DEFAULT_RUNS, MOST_RUNS, BenchmarkProtocol
from bench.records.store import RESULTS_DIR
from bench.report.trackers import TrackerRequest, check_trackers, log_to_trackers
from mnist_cnn.accuracy import parse_accuracy
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED, is_first_here, is_main_process
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Recipe, recipe_named, with_overrides

if TYPE_CHECKING:
    from bench.records.schema import RunRecord

_ADDRESS = re.compile(r"\[[0-9A-Fa-f.:]+\](?::\d+)?")
"""As gloo writes them: ``[10.0.0.2]:4711``."""


def run(
    context: typer.Context,
    recipe: Annotated[
        str,
        typer.Option(
            help="What to train: reference, fast, fast-gpu, or auto: fast as the device has it."
        ),
    ] = "auto",
    runs: Annotated[
        str,
        typer.Option(
            help="Measured runs, each from a new seed; or auto: until their time is known well."
        ),
    ] = str(DEFAULT_RUNS),
    half_width: Annotated[
        str | None,
        typer.Option(
            help="With --runs auto: of the 95 % interval of the training time (default: 5%)."
        ),
    ] = None,
    max_runs: Annotated[
        int | None,
        typer.Option(help=f"With --runs auto: no more than these (default: {MOST_RUNS})."),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(help="With --runs auto: no longer than 90s, 10m or 1h, start-up not counted."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Seed of the first run; the next ones follow.")] = 0,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, mps or xpu.")] = "auto",
    processes: Annotated[
        str | None,
        typer.Option(
            help="Start so many processes that train together, over all machines; or auto: as many "
            "as are fastest here (default: one)."
        ),
    ] = None,
    machines: Annotated[
        int | None,
        typer.Option(help="So many machines train together; started by this command on each."),
    ] = None,
    machine_rank: Annotated[
        int | None,
        typer.Option(help="Which of them this is: 0 is the one that --main-address names."),
    ] = None,
    main_address: Annotated[
        str | None, typer.Option(help="HOST:PORT by which the others reach machine 0.")
    ] = None,
    parallel_seeds: Annotated[
        str | None,
        typer.Option(
            help="Make so many runs at a time, each by a process of its own, on a GPU of its own "
            "where there are as many; or auto: one a GPU, on a CPU one for --threads cores."
        ),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Print the command that starts the processes; train not."),
    ] = False,
    threads: Annotated[
        int | None, typer.Option(help="Threads of each process (default: its share of the cores).")
    ] = None,
    precision: Annotated[str, typer.Option(help="auto, fp32, bf16 or fp16.")] = "auto",
    kernels: Annotated[
        str,
        typer.Option(help="What computes a step: auto, torch, inductor (fused), avx512 or amx."),
    ] = "auto",
    capture: Annotated[
        bool | None,
        typer.Option(
            "--capture/--no-capture",
            help="Record whole steps as CUDA graphs (default: where they can be).",
        ),
    ] = None,
    pipeline: Annotated[
        str | None,
        typer.Option(help="loader (torchvision in a DataLoader) or resident (on the device)."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Stretch the recipe's schedule over so many epochs.")
    ] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images a step over all processes, in place of the recipe's; the learning rate "
            "follows (docs/sweep.md)."
        ),
    ] = None,
    target_accuracy: Annotated[
        str, typer.Option(help="Accuracy to reach: 99.4 or 0.994.")
    ] = "99.4",
    stop_at_target: Annotated[
        bool, typer.Option("--stop-at-target", help="End a run where it reaches the target.")
    ] = False,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="Where MNIST is kept (default: the user's cache folder)."),
    ] = None,
    results_dir: Annotated[Path, typer.Option(help="Where records go.")] = RESULTS_DIR,
    label: Annotated[str | None, typer.Option(help="A word to find these runs by.")] = None,
    save: Annotated[bool, typer.Option("--save/--no-save", help="Keep a record a run.")] = True,
    checkpoint_every: Annotated[
        int | None,
        typer.Option(help="Keep what a lost run can go on from, after every so many epochs."),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option("--resume", help="Go on with the benchmark that was lost: same command."),
    ] = False,
    fall_back: Annotated[
        bool,
        typer.Option(
            "--fall-back", help="With --resume: where a checkpoint is damaged, from the one before."
        ),
    ] = False,
    checkpoint_dir: Annotated[
        Path | None,
        typer.Option(help="Where checkpoints are kept (default: .checkpoints among the results)."),
    ] = None,
    profile: Annotated[
        Path | None,
        typer.Option(help="Measure nothing; write a profiler trace of some steps there (JSON)."),
    ] = None,
    track: Annotated[
        list[str] | None,
        typer.Option(
            help="After the last run, log all runs with tensorboard, trackio, mlflow or wandb, "
            "here and offline. May be repeated."
        ),
    ] = None,
    track_dir: Annotated[
        Path | None,
        typer.Option(help="Where trackers write (default: .trackers among the results)."),
    ] = None,
    quiet: Annotated[bool, typer.Option("--quiet", help="No progress, only the table.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the runs as JSON instead of the table.")
    ] = False,
) -> int:
    """Train N times from random weights and say how long 99.4 % took."""
    # Read by torch as it is imported. A CPU fallback inside an MPS run would be timed as the GPU.
    os.environ["PYTORCH_ENABLE_MPS_FALLBACK"] = "0"
    protocol = BenchmarkProtocol(
        first_seed=seed,
        target_accuracy=parse_accuracy(target_accuracy),
        stop_at_target=stop_at_target,
        **_how_many(runs, half_width, max_runs, budget),
    )
    if recipe == "auto":
        # torch is needed to find the device, and by the run itself too.
        from bench.measure.plan import choose_recipe

        recipe = choose_recipe(device)
    chosen = with_overrides(recipe_named(recipe), epochs, pipeline, batch_size)
    keeping = check_keeping(
        checkpoint_every,
        resume,
        fall_back,
        checkpoint_dir,
        results_dir,
        save=save,
        profile=profile,
    )
    tracked = check_trackers(track or [], track_dir, results_dir, profile)
    wish = Wish(
        processes, machines, machine_rank, main_address, device, precision, threads, kernels
    )
    share = mine()
    if parallel_seeds is not None:
        check_parallel_seeds(
            wish,
            protocol,
            keeping=keeping is not None,
            profile=profile is not None,
            is_rank=supervisor.is_rank(),
        )
        if share is None:
            return _in_parallel(
                context.obj,
                parallel_seeds,
                wish,
                chosen,
                protocol,
                dry_run=dry_run,
                data_dir=data_dir,
                saved_in=results_dir if save else None,
                tracked=tracked,
                quiet=quiet,
                as_json=as_json,
            )
        threads = threads or share.threads
    if supervisor.is_rank():
        check_launched_ranks(wish)
        if dry_run:
            raise UsageError("--dry-run shows how processes are started, and these are already")
    elif share is None:
        here, place = plan_ranks(wish, chosen)
        if dry_run:
            print(launch_command(context.obj, wish, chosen, here, place))
            return 0
        if here is not None:
            return start_ranks(context.obj, here, place, threads)
    if profile is not None:
        from bench.measure.profiling import print_profile

        return print_profile(
            chosen,
            protocol,
            profile,
            device=device,
            precision=precision,
            threads=threads,
            kernels=kernels,
            capture=capture,
            data_dir=data_dir,
            fetch_data=lambda silent: get_data(data_dir, silent),
        )
    speaks = is_main_process()
    if save and speaks:
        from bench.records.store import check_writable

        check_writable(results_dir)
    if tracked is not None and speaks:
        tracked.check_writable()
    done: list[tuple[Path | None, RunRecord]] = []
    status = 0
    failed = False
    interruption = Interruption()
    silent = quiet or as_json or not speaks
    measured = measure_benchmark(
        chosen,
        protocol,
        interruption,
        device=device,
        precision=precision,
        threads=threads,
        kernels=kernels,
        capture=capture,
        data_dir=data_dir,
        label=label,
        keeping=keeping,
        earlier=done,
        share=share,
        progress=choose_progress(silent, alone=share is None),
        fetch_data=lambda: get_data(data_dir, silent),
    )
    try:
        with interruption, closing(measured):
            for record, error in map(_explained, measured):
                path = _save(record, results_dir) if save and speaks else None
                if share is not None:
                    leave_record(record, share)
                if error is not None and not isinstance(error, KeyboardInterrupt):
                    traceback.print_exception(error)
                    failed = True
                done.append((path, record))
                status = max(status, _exit_status(record, unsaved=save and speaks and path is None))
                if interruption.asked:
                    break
    except KeyboardInterrupt:
        if speaks:
            print("mnist-bench: interrupted while no run was being measured", file=sys.stderr)
    if interruption.asked:
        status = EXIT_INTERRUPTED
    if speaks and done and not (share and share.records):
        _print(done, as_json)
        if tracked is not None:
            records = [record for _, record in done]
            status = max(status, log_to_trackers(records, chosen, tracked, quiet))
    # A rank that ends badly has the others killed, rank 0 in the middle of saving: where all saw
    # the same outcome, it alone reports it; on other machines, which have others to tell, one.
    return status if is_first_here() or failed else 0


def _in_parallel(
    words: Sequence[str],
    at_a_time: str,
    wish: Wish,
    recipe: Recipe,
    protocol: BenchmarkProtocol,
    *,
    dry_run: bool,
    data_dir: Path | None,
    saved_in: Path | None,
    tracked: TrackerRequest | None,
    quiet: bool,
    as_json: bool,
) -> int:
    """Have other processes make the runs, and print what came of them."""
    with temporary_folder() as folder:
        left_in = "" if dry_run else folder
        shares, gpus = plan_shares(at_a_time, wish, recipe, protocol.runs, left_in)
        if dry_run:
            print(share_commands(words, shares, gpus))
            return 0
        if saved_in is not None:
            from bench.records.store import check_writable

            check_writable(saved_in)
        if tracked is not None:
            tracked.check_writable()
        get_data(data_dir, quiet or as_json)
        done, status = run_shares(words, shares, gpus, saved_in)
    if done:
        _print(done, as_json)
        if tracked is not None:
            records = [record for _, record in done]
            status = max(status, log_to_trackers(records, recipe, tracked, quiet))
    return status


class _HowMany(TypedDict):
    runs: int
    half_width: float | None
    budget_seconds: float | None


def _how_many(
    runs: str, half_width: str | None, max_runs: int | None, budget: str | None
) -> _HowMany:
    """What the options say of the number of runs, as `BenchmarkProtocol` takes it."""
    if runs == "auto":
        if max_runs is not None and max_runs < 1:
            raise UsageError(f"--max-runs must be at least 1, not {max_runs}")
        return {
            "runs": max_runs or MOST_RUNS,
            "half_width": parse_share(half_width or "5%", "--half-width"),
            "budget_seconds": None if budget is None else parse_duration(budget),
        }
    options = {"--half-width": half_width, "--max-runs": max_runs, "--budget": budget}
    for option, value in options.items():
        if value is not None:
            raise UsageError(f"{option} is for --runs auto")
    try:
        return {"runs": int(runs), "half_width": None, "budget_seconds": None}
    except ValueError:
        raise UsageError(f"--runs takes a number or auto, not {runs!r}") from None


def _explained(
    measured: tuple[RunRecord, BaseException | None],
) -> tuple[RunRecord, BaseException | None]:
    """A run that failed because another rank died says so: its own error is a lost connection."""
    record, error = measured
    if record.status != "failed" or record.setup.processes == 1:
        return measured
    died = supervisor.death_notice()
    if died is None:
        if record.setup.machines == 1:
            return measured
        died = "no process of this machine died first, so another machine or the network did"
    # Errors of the network name other machines' addresses, which a record must not.
    reason = _ADDRESS.sub("another rank", f"{died}; {record.reason}")
    return record.model_copy(update={"reason": reason}), error


def _save(record: RunRecord, results_dir: Path) -> Path | None:
    """Where the record went; None, said on stderr, where it could not be written."""
    from bench.records.store import save_record

    try:
        return save_record(record, results_dir)
    except OSError as error:
        print(
            f"mnist-bench: error: the record could not be saved in {results_dir}: "
            f"{error.strerror}; free some space there, or name another folder with --results-dir",
            file=sys.stderr,
        )
        return None


def _print(done: list[tuple[Path | None, RunRecord]], as_json: bool) -> None:
    from bench.analysis.benchmarks import group_runs
    from bench.analysis.columns import run_column_names
    from bench.analysis.rows import run_rows

    benchmarks = group_runs(done)
    if as_json:
        from bench.report.formats.json import to_json

        rows, columns = run_rows(benchmarks), run_column_names()
        sys.stdout.write(to_json(rows, columns))
        return
    from bench.report import terminal

    terminal.show(terminal.summary(benchmarks))


def _exit_status(record: RunRecord, unsaved: bool) -> int:
    if record.status == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_FAILED if unsaved or record.status != "completed" else 0
