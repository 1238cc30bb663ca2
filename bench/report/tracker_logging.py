"""Log runs with one experiment tracker, through Accelerate, to files on this machine.

Call it only after the last run: a tracker's threads would take time from a lap, and its memory
would count as a run's. No tracker is imported before.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from pathlib import Path

from bench.records.schema import RunRecord
from bench.records.store import file_name
from bench.report.tracker_values import config, curve, summary
from mnist_cnn.recipe import Recipe

_PROJECT = "mnist-bench"
"""Name of the project, in trackers that have projects or experiments."""


def log_runs(name: str, records: Sequence[RunRecord], recipe: Recipe, folder: Path) -> None:
    """Log runs with one tracker: to files, and to nothing else.

    Only the main process may call it. It removes the tracker's variables from the environment:
    they may name a server, or a run to continue.

    Args:
        name: the tracker, which is installed.
        records: the runs; each becomes a run of the tracker.
        recipe: the recipe that they trained.
        folder: the tracker's files go into a folder of its name in this folder.

    Raises:
        Exception: whatever the tracker raises.
    """
    from accelerate import Accelerator

    folder = folder.resolve()
    tracker_folder = folder / name
    tracker_folder.mkdir(parents=True, exist_ok=True)
    _set_environment(name, tracker_folder)
    for record in records:
        run = Path(file_name(record)).stem
        # One per run: `init_trackers` would start the trackers of earlier runs again.
        accelerator = Accelerator(log_with=name, project_dir=tracker_folder)
        try:
            project = run if name == "tensorboard" else _PROJECT  # TensorBoard's runs are folders
            options = {name: _start_options(name, run, folder)}
            accelerator.init_trackers(project, config(record), options)
            points = curve(record, recipe)
            for epoch, values in points.items():
                accelerator.log(values, step=epoch)
            accelerator.log(summary(record), step=max(points, default=0))
        finally:
            accelerator.end_training()
            _finish(name)


def _start_options(name: str, run: str, folder: Path) -> dict[str, object]:
    """The options that Accelerate passes to the tracker at its start."""
    match name:
        case "trackio":
            # Its own measurements of the machine would be of the time after the runs.
            return {"name": run, "embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        case "mlflow":
            return {"run_name": run, "logging_dir": str(folder / name / "artifacts")}
        case "wandb":
            return {"name": run, "mode": "offline", "dir": str(folder)}  # it adds "wandb"
        case _:
            return {}


def _set_environment(name: str, folder: Path) -> None:
    """Set this process's environment so that the tracker, once imported, writes to `folder`."""
    for variable in [v for v in os.environ if v.startswith(f"{name.upper()}_")]:
        del os.environ[variable]
    match name:
        case "trackio":
            os.environ["TRACKIO_DIR"] = str(folder)
            os.environ["HF_HUB_OFFLINE"] = "1"  # otherwise it asks the Hub about a token
        case "mlflow":
            os.environ["MLFLOW_TRACKING_URI"] = mlflow_store(folder)
            os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"  # otherwise it reports its use
            os.environ["MLFLOW_LOGGING_LEVEL"] = "WARNING"  # not that it makes its tables
        case "wandb":
            os.environ["WANDB_SILENT"] = "true"
            os.environ["WANDB_ERROR_REPORTING"] = "false"


def mlflow_store(folder: Path) -> str:
    """MLflow's name of the database in its folder.

    Raises:
        ValueError: MLflow would read a part of the path as options.
    """
    if "?" in str(folder):
        raise ValueError(f"its database cannot be in a folder with a question mark: {folder}")
    return f"sqlite:///{folder.resolve()}/mlflow.db"


def _finish(name: str) -> None:
    """Finish what Accelerate does not: Trackio would finish the run at exit, and print it."""
    if name == "trackio":
        import trackio

        with contextlib.suppress(RuntimeError):  # raised when the run could not be started
            trackio.finish()
