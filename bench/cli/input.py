"""The benchmarks that a command shows: of the paths named, or this machine's own."""

from __future__ import annotations

from pathlib import Path

from bench.analysis.benchmarks import Benchmark, group_runs, pool_single_runs
from bench.cli.output import notify, show_problems
from bench.records import store
from bench.records.folders import LOCAL_DIR, RESULTS_DIR, existing_dirs
from bench.records.store import UnreadableFile, machine_name
from bench.text import printable
from mnist_cnn.errors import UsageError


def read_benchmarks(paths: list[Path]) -> tuple[list[Benchmark], list[UnreadableFile]]:
    """The benchmarks on disk, and the files that cannot be read, which are also shown.

    Single runs that differ in nothing but their seed make one benchmark.

    Raises:
        UsageError: there are no records.
    """
    # Before the first run there is no results folder, and that is no mistyped path.
    results = store.read_records(path for path in paths if path != RESULTS_DIR or path.exists())
    show_problems(results.problems)
    if not results.records:
        where = ", ".join(printable(str(path)) for path in paths)
        hint = f"; yours are in {LOCAL_DIR}" if LOCAL_DIR.is_dir() else ""
        raise UsageError(f"no run records in {where}: make some with `mnist-bench run`{hint}")
    return pool_single_runs(group_runs(results.records)), results.problems


def own_benchmarks(*, newest: bool) -> tuple[list[Benchmark], list[UnreadableFile]]:
    """This machine's benchmarks; where it has none, all that are published.

    Args:
        newest: whether only its newest is wanted; a scaling study is of several.

    Raises:
        UsageError: there are no records at all.
    """
    results = store.read_records([LOCAL_DIR] if LOCAL_DIR.is_dir() else [])
    folders = {path.parent.name for path, _ in results.records}
    # A home folder that several machines share has one for each.
    here = folders if len(folders) < 2 else folders & {_this_machine()}
    own = [run for run in results.records if run[0].parent.name in here]
    if own:
        show_problems(results.problems)
        benchmarks = pool_single_runs(group_runs(own))
        if newest:
            benchmarks = [max(benchmarks, key=lambda one: max(r.started_utc for r in one.records))]
        return benchmarks, results.problems
    if not existing_dirs():
        raise UsageError(f"no run records in {LOCAL_DIR}: make some with `mnist-bench run`")
    notify(
        f"no runs of this machine in {LOCAL_DIR}: make some with `mnist-bench run`. Those that are "
        f"published, in {RESULTS_DIR}:"
    )
    return read_benchmarks([RESULTS_DIR])


def _this_machine() -> str:
    """The name of the folder of this machine's records."""
    from bench.machine.environment import describe_environment, device_name  # lazy: import torch
    from bench.measure import plan

    device = plan.choose_device("auto")
    return machine_name(describe_environment(device, device_name(device)))
