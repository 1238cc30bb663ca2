"""`mnist-bench run --track`: the measured runs in an experiment tracker, once all are over."""

from __future__ import annotations

import contextlib
import io
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench import store
from bench.notation import inert, plural
from mnist_cnn.console import EXIT_FAILED
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Recipe

if TYPE_CHECKING:
    from bench.records import RunRecord

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
class Tracked:
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
) -> Tracked | None:
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
    from bench import tracking

    tracking.check(names)
    return Tracked(tuple(dict.fromkeys(names)), track_dir or results_dir / TRACKERS_DIR)


def hand_over(records: Sequence[RunRecord], recipe: Recipe, tracked: Tracked, quiet: bool) -> int:
    """Log runs that are over; what goes wrong is said, and changes no record.

    Returns:
        The exit status: 1 where a tracker failed.
    """
    from bench import tracking

    status = 0
    for name in tracked.names:
        try:
            # Trackers greet on stdout, which is the table's or --json's; the line below says it.
            with contextlib.redirect_stdout(io.StringIO()):
                tracking.log(name, records, recipe, tracked.folder)
        except Exception as error:
            first_line = (str(error).splitlines() or [""])[0]
            _say(f"error: {name} did not take the runs: {type(error).__name__}: {first_line}")
            status = EXIT_FAILED
            continue
        if not quiet:
            look = _LOOK[name].format(shlex.quote(str(tracked.folder / name)))
            _say(f"{plural(len(records), 'run')} logged with {name}; to look at them: {look}")
    return status


def _say(line: str) -> None:
    print(f"mnist-bench: {inert(line)}", file=sys.stderr)
