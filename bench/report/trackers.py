"""Experiment trackers: which ones a command asks for, and the log of its runs when they are over.

See `bench.report.tracker_logging` for the logging itself.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from bench.records import store
from bench.records.schema import RunRecord
from bench.report.tracker_logging import log_runs
from bench.text import count_of, printable
from mnist_cnn.console import EXIT_FAILED
from mnist_cnn.errors import UsageError, near_match
from mnist_cnn.recipe import Recipe

TRACKERS = ("tensorboard", "trackio", "mlflow", "wandb")
"""The trackers, by the name that Accelerate knows each by; its package has the same name."""
TRACKERS_DIR = ".trackers"
"""Default folder, among the results; hidden, so that no command looks for records in it."""

_VIEW_COMMANDS = {
    "tensorboard": "tensorboard --logdir {}",
    "trackio": "TRACKIO_DIR={} trackio show --project mnist-bench",
    "mlflow": "mlflow ui --backend-store-uri sqlite:///{}/mlflow.db",
    "wandb": "wandb sync {}/offline-run-*, which uploads them",
}
"""The command that shows what a tracker has in its folder."""


@dataclass(frozen=True, slots=True)
class TrackerRequest:
    """The trackers that log the runs, and their folder."""

    names: tuple[str, ...]
    """Names of the trackers, as Accelerate knows them."""
    folder: Path
    """Folder in which each tracker has a folder of its own."""

    def check_writable(self) -> None:
        """Check before training that the folder can be written to.

        Raises:
            UsageError: it cannot.
        """
        store.check_writable(self.folder, "the trackers' folder", "choose another with --track-dir")


def check_trackers(
    names: Sequence[str], track_dir: Path | None, results_dir: Path, profile: Path | None
) -> TrackerRequest | None:
    """The request of a command line; None when it asks for no tracker.

    Raises:
        UsageError: a tracker is not installed, or the options exclude each other.
    """
    if not names:
        if track_dir is not None:
            raise UsageError("--track-dir is for --track: name a tracker with it")
        return None
    if profile is not None:
        raise UsageError("--profile measures nothing that --track could log: leave one of them out")
    check_installed(names)
    return TrackerRequest(tuple(dict.fromkeys(names)), track_dir or results_dir / TRACKERS_DIR)


def check_installed(names: Iterable[str]) -> None:
    """Check that these trackers can be imported, without importing them.

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
        # A folder without code, such as the one that wandb writes to, has a spec but no origin.
        if spec is None or spec.origin is None:
            raise UsageError(f"{name} is not installed: pip install {name}")


def log_to_trackers(
    records: Sequence[RunRecord], recipe: Recipe, request: TrackerRequest, quiet: bool
) -> int:
    """Log runs that are over. A tracker that fails is reported; the records stay as they are.

    Returns:
        The exit status: 1 when a tracker failed.
    """
    status = 0
    for name in request.names:
        try:
            # Trackers print a greeting on stdout, which belongs to the table or to --json.
            with contextlib.redirect_stdout(io.StringIO()):
                log_runs(name, records, recipe, request.folder)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            _print(f"error: {name} did not take the runs: {type(error).__name__}: {first_line}")
            status = EXIT_FAILED
            continue
        if not quiet:
            command = _VIEW_COMMANDS[name].format(shlex.quote(str(request.folder / name)))
            _print(
                f"{count_of(len(records), 'run')} logged with {name}; to look at them: {command}"
            )
    return status


def _print(line: str) -> None:
    print(f"mnist-bench: {printable(line)}", file=sys.stderr)
