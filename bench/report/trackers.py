"""Hand measured runs to experiment trackers, through Accelerate and on this machine alone.

To be called when the last run's clock has stopped. Until then no tracker is so much as imported:
its threads would take time from a lap, and its memory would count as a run's.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from bench.analysis.columns import COLUMNS, Role
from bench.analysis.rows import run_row
from bench.records import store
from bench.records.schema import LapKind, RunRecord
from bench.records.store import file_name
from bench.text import count_of, printable
from mnist_cnn.console import EXIT_FAILED
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.recipe import Recipe

if TYPE_CHECKING:
    from bench.records.schema import RunRecord


PROJECT = "mnist-bench"
"""What the runs are filed under, in trackers that have projects or experiments."""

TRACKERS = {
    "tensorboard": "'mnist-bench[track]'",
    "trackio": "'mnist-bench[track]'",
    "mlflow": "'mnist-bench[track]' mlflow",
    "wandb": "'mnist-bench[track]' wandb",
}
"""Those there are, as Accelerate calls them, and what to install for each."""

Value = str | int | float
"""What every tracker takes (a truth value is an int)."""

_WHOLE_NUMBERS_BELOW = 2**53
"""From here on a number may be rounded (TensorBoard), or refused with all others (Trackio)."""


def check_installed(names: Iterable[str]) -> None:
    """Find out whether there are such trackers, without importing any.

    Raises:
        UsageError: one is unknown or not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise UsageError(
                f"unknown tracker {printable(name)!r}{near_match(name, TRACKERS)}; "
                f"there are: {', '.join(TRACKERS)}"
            )
        spec = find_spec(name)
        # A mere folder of that name, such as wandb leaves behind, passes for a package too.
        if spec is None or spec.origin is None:
            raise UsageError(f"{name} is not installed: pip install {TRACKERS[name]}")


def log_runs(name: str, records: Sequence[RunRecord], recipe: Recipe, folder: Path) -> None:
    """Log runs with one tracker: to files, and to nothing else.

    To be called by one process, the main one. What the environment tells the tracker (a server, a
    run to go on with) is taken out of it.

    Args:
        name: the tracker's, which `check` has seen.
        records: the runs, each of which becomes one of the tracker's.
        recipe: what they trained.
        folder: in it the tracker has one of its own, of its name, for its files.

    Raises:
        Exception: whatever the tracker raises.
    """
    from accelerate import Accelerator

    folder = folder.resolve()
    own = folder / name
    own.mkdir(parents=True, exist_ok=True)
    _keep_here(name, own)
    for record in records:
        run = Path(file_name(record)).stem
        # A new one a run, on the state there is: `init_trackers` starts those of earlier calls too.
        accelerator = Accelerator(log_with=name, project_dir=own)
        try:
            project = run if name == "tensorboard" else PROJECT  # its runs are folders
            options = {name: _options(name, run, folder)}
            accelerator.init_trackers(project, config(record), options)
            points = curve(record, recipe)
            for epoch, values in points.items():
                accelerator.log(values, step=epoch)
            accelerator.log(summary(record), step=max(points, default=0))
        finally:
            accelerator.end_training()
            _let_go(name)


def config(record: RunRecord) -> dict[str, Value]:
    """What a run is and was made with: every field of its record but the curves, names joined.

    A list, null, or a whole number too large for some tracker is its JSON.
    """
    curves = {"laps", "epochs", "evaluations", "mistakes"}
    values = record.model_dump(mode="json", exclude=curves)
    return {name: _taken(value) for name, value in _flat("", values)}


def curve(record: RunRecord, recipe: Recipe) -> dict[int, dict[str, float]]:
    """What is known of each epoch, by epoch; what was not measured or not finite is not there.

    The learning rate is that of the epoch's last step, by the recipe's schedule.
    """
    from mnist_cnn.optim import learning_rates
    from mnist_cnn.sampler import steps_in_epoch

    epochs = range(1, recipe.epochs + 1)
    steps = sum(steps_in_epoch(recipe, recipe.train_images, epoch) for epoch in epochs)
    rates = learning_rates(recipe, steps)
    seconds = {lap.epoch: lap.seconds for lap in record.laps if lap.kind is LapKind.TRAIN}
    points: dict[int, dict[str, float]] = {}
    done = 0
    for trained in record.epochs:
        done += trained.steps
        point = points.setdefault(trained.epoch, {})
        point["train/learning_rate"] = float(rates[done - 1])
        if trained.loss is not None:
            point["train/loss"] = trained.loss
        if taken := seconds.get(trained.epoch):
            point["train/images_per_second"] = trained.samples / taken
    for evaluation in record.evaluations:
        point = points.setdefault(evaluation.epoch, {})
        point["evaluation/accuracy"] = evaluation.accuracy
        if evaluation.loss is not None:
            point["evaluation/loss"] = evaluation.loss
    return points


def summary(record: RunRecord) -> dict[str, float]:
    """What a run came to: the measured columns of its row, those that it has."""
    row = run_row((None, record))
    measured = (column.name for column in COLUMNS if column.role is Role.MEASURED)
    return {
        f"summary/{name}": value for name in measured if isinstance(value := row[name], int | float)
    }


def _flat(name: str, value: object) -> Iterable[tuple[str, object]]:
    """A tree's leaves, each with the names on the way to it; an empty branch is a leaf."""
    if not isinstance(value, dict) or not value:
        yield name, value
        return
    for key, inner in value.items():
        yield from _flat(f"{name}.{key}" if name else key, inner)


def _taken(value: object) -> Value:
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < _WHOLE_NUMBERS_BELOW):
        return value
    return printable(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False))


def _options(name: str, run: str, folder: Path) -> dict[str, object]:
    """What the tracker's start takes, as Accelerate hands it on."""
    match name:
        case "trackio":
            # What it measures of the machine by itself would be of the time after the runs.
            return {"name": run, "embed": False, "auto_log_cpu": False, "auto_log_gpu": False}
        case "mlflow":
            return {"run_name": run}
        case "wandb":
            return {"name": run, "mode": "offline", "dir": str(folder)}  # it adds "wandb"
        case _:
            return {}


def _keep_here(name: str, folder: Path) -> None:
    """Set the process's environment so that the tracker, once imported, writes to `folder`."""
    for variable in [v for v in os.environ if v.startswith(f"{name.upper()}_")]:
        del os.environ[variable]
    match name:
        case "trackio":
            os.environ["TRACKIO_DIR"] = str(folder)
            os.environ["HF_HUB_OFFLINE"] = "1"  # it would ask whose token this is
        case "mlflow":
            os.environ["MLFLOW_TRACKING_URI"] = folder.as_uri()
            os.environ["MLFLOW_ALLOW_FILE_STORE"] = "true"  # refused without, since version 3
        case "wandb":
            os.environ["WANDB_SILENT"] = "true"


def _let_go(name: str) -> None:
    """Finish what Accelerate leaves: Trackio would finish the run again at exit, and print it."""
    if name == "trackio":
        import trackio

        with contextlib.suppress(RuntimeError):  # there is no run: it could not be started
            trackio.finish()


TRACKERS_DIR = ".trackers"
"""Among the results, and hidden: whoever reads those must not look for records in it."""

_LOOK = {
    "tensorboard": "tensorboard --logdir {}",
    "trackio": "TRACKIO_DIR={} trackio show --project mnist-bench",
    "mlflow": "MLFLOW_ALLOW_FILE_STORE=true mlflow ui --backend-store-uri {}",
    "wandb": "wandb sync {}/offline-run-*, which uploads them",
}
"""How to look at what each has in its folder."""


@dataclass(frozen=True, slots=True)
class TrackerRequest:
    """What the runs are to be logged with, and where to."""

    names: tuple[str, ...]
    folder: Path
    """In which each tracker has a folder of its own."""

    def check_writable(self) -> None:
        """Find out before training.

        Raises:
            UsageError: it is not.
        """
        store.check_writable(self.folder, "the trackers' folder", "choose another with --track-dir")


def check_trackers(
    names: Sequence[str], track_dir: Path | None, results_dir: Path, profile: Path | None
) -> TrackerRequest | None:
    """What the options ask for; None where they ask for no tracker.

    Raises:
        UsageError: there is no such tracker here, or the options do not go together.
    """
    if not names:
        if track_dir is not None:
            raise UsageError("--track-dir is for --track: name a tracker with it")
        return None
    if profile is not None:
        raise UsageError("--profile measures nothing that --track could log: leave one of them out")
    check_installed(names)
    return TrackerRequest(tuple(dict.fromkeys(names)), track_dir or results_dir / TRACKERS_DIR)


def log_to_trackers(
    records: Sequence[RunRecord], recipe: Recipe, tracked: TrackerRequest, quiet: bool
) -> int:
    """Log runs that are over; what goes wrong is said, and changes no record.

    Returns:
        The exit status: 1 where a tracker failed.
    """
    status = 0
    for name in tracked.names:
        try:
            # Trackers greet on stdout, which is the table's or --json's; the line below says it.
            with contextlib.redirect_stdout(io.StringIO()):
                log_runs(name, records, recipe, tracked.folder)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            _say(f"error: {name} did not take the runs: {type(error).__name__}: {first_line}")
            status = EXIT_FAILED
            continue
        if not quiet:
            look = _LOOK[name].format(shlex.quote(str(tracked.folder / name)))
            _say(f"{count_of(len(records), 'run')} logged with {name}; to look at them: {look}")
    return status


def _say(line: str) -> None:
    print(f"mnist-bench: {printable(line)}", file=sys.stderr)
