"""The harness: clocks, records and tables around the `mnist_cnn` workload.

In a notebook or a program: `run` measures this machine, `load` reads records, `compare` says what
differs. Each returns a DataFrame and does what the command of its name does.
"""

from __future__ import annotations

TYPE_CHECKING = False  # as typing has it, whose import takes time in which a signal may come
if TYPE_CHECKING:
    from collections.abc import Sequence
    from os import PathLike
    from typing import Literal

    from pandas import DataFrame


def run(
    *,
    recipe: str = "auto",
    runs: int | Literal["auto"] = 3,
    seed: int = 0,
    device: str = "auto",
    processes: int | Literal["auto"] | None = None,
    threads: int | None = None,
    label: str | None = None,
    results_dir: str | PathLike[str] | None = None,
    options: Sequence[str] = (),
) -> DataFrame:
    """Measure this machine: train several times, each from a new seed, and save the records.

    The runs are made by a process of their own: what the calling one has imported is not in it. It
    prints its progress on stderr.

    Args:
        recipe: name of a recipe, or "auto" for the device's fast one.
        runs: number of runs, or "auto" for as many as are needed.
        seed: of the first run; each next one adds 1.
        device: torch's name of a device, or "auto" for the fastest that is here.
        processes: that train together, or "auto" for the fastest number; None for one.
        threads: of each process; None for its share of the cores.
        label: by which `compare` and `report` find these runs.
        results_dir: folder for the records; None for ``results/local``.
        options: further options of ``mnist-bench run``, such as ``["--epochs", "9"]``.

    Returns:
        A row a run, also of one that failed (column ``status``); columns as of `load`.

    Raises:
        mnist_cnn.errors.UsageError: no run was made; stderr says why.
        KeyboardInterrupt: it was interrupted; what was measured is saved.
    """
    from bench.launch.single_run import run_for_rows
    from bench.report.dataframe import runs_frame

    values = {
        "--recipe": recipe,
        "--runs": runs,
        "--seed": seed,
        "--device": device,
        "--processes": processes,
        "--threads": threads,
        "--label": label,
        "--results-dir": results_dir,
    }
    words = [f"{name}={value}" for name, value in values.items() if value is not None]
    return runs_frame(run_for_rows([*words, *options]))


def load(*paths: str | PathLike[str], per: Literal["run", "benchmark"] = "benchmark") -> DataFrame:
    """Records as a tidy table: a row a run or a benchmark, the columns of `report --to json`.

    Text is of dtype ``string``, counts ``Int64``, measurements ``Float64``; what is absent is
    ``pandas.NA``. Times are seconds, accuracies fractions; ``.attrs["units"]`` has the unit of
    every column, and ``.attrs["problems"]`` a line for each file that could not be read.

    Args:
        paths: records, folders of them or zip files (default: those of ``results/local`` and
            ``results`` that are there).
        per: what a row stands for.

    Raises:
        mnist_cnn.errors.UsageError: a path does not exist, or holds no record.

    Warns:
        UserWarning: files were found that are not among the rows.
    """
    # Here: pandas takes long to load, and nothing else in `bench` may wait for it.
    from bench.report.dataframe import to_dataframe

    return to_dataframe(paths, per)


def compare(
    base: str | PathLike[str],
    *new: str | PathLike[str],
    results_dir: str | PathLike[str] | None = None,
) -> DataFrame:
    """Compare runs: time, accuracy and learning curve, each difference with its 95 % interval.

    Times are seconds, accuracies and shares fractions. A difference is new divided by base; of
    accuracies and shares it is new minus base in percentage points. Where ``per_success``, because
    some run missed the target, times are the seconds of all runs for each success.

    Args:
        base: a file or folder of records; or a label, commit or benchmark id of records in the
            results folder.
        new: what is compared with it, at least one.
        results_dir: folder to search for labels and commits; None for ``results/local`` and
            ``results``.

    Returns:
        A row for each new side, set-up (``name``) and ``metric``, with ``verdict`` and, where the
        runs cannot tell, ``runs_needed``.

    Raises:
        mnist_cnn.errors.UsageError: a name names no runs, or runs cannot be compared.
    """
    from pathlib import Path

    from bench.records.folders import DEFAULT_DIRS
    from bench.report.dataframe import comparison_frame
    from mnist_cnn.errors import UsageError

    if not new:
        raise UsageError("name at least two things to compare: base, new")
    folders = DEFAULT_DIRS if results_dir is None else (Path(results_dir),)
    return comparison_frame(str(base), [str(name) for name in new], folders)
