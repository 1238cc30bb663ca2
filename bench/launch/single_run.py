"""One run in its own process: the unit of `ab` and `sweep`.

A process that has trained once has warm caches, a grown allocator and compiled code, so a second
run in it would take another time than the first.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bench.launch.checkout import Checkout, checkout_environment
from bench.launch.supervisor import run_each
from mnist_cnn.console import EXIT_INTERRUPTED, EXIT_USAGE
from mnist_cnn.errors import UsageError
from mnist_cnn.user_folders import temporary_folder

Notify = Callable[[str], None]
"""Shows a line to the user."""
# Not `-m bench`: that needs the project on the path, and a plain checkout is not on it.
_OWN_PROGRAM = (sys.executable, str(Path(__file__).resolve().parents[1] / "run.py"))


def run_command(options: Sequence[str], checkout: Checkout | None = None) -> list[str]:
    """The command line that starts one run.

    Args:
        options: options of `mnist-bench run`.
        checkout: the commit to run; None for the code in this checkout, with its uncommitted
            changes.
    """
    program = _OWN_PROGRAM if checkout is None else checkout.program
    return [*program, *options, "--runs", "1", "--quiet"]


def run_for_rows(options: Sequence[str]) -> list[dict[str, Any]]:
    """Make the runs of a benchmark in a process of their own, and return their rows.

    Args:
        options: options of `mnist-bench run`.

    Returns:
        What ``run --json`` prints: a row a run, those that failed included.

    Raises:
        UsageError: the options were refused; stderr says why.
        KeyboardInterrupt: the runs or this process were interrupted; the records are saved.
    """
    command = [*_OWN_PROGRAM, *options, "--json"]
    with temporary_folder() as folder:
        file = folder / "runs.json"
        with file.open("wb") as stdout:
            ended = run_each(command, [dict(os.environ)], stdout=stdout.fileno())
        text = file.read_text("utf-8")
    (code,) = ended.codes
    if ended.interrupted or code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    if code == EXIT_USAGE or not text:
        raise UsageError(f"no run was made (exit status {code}): see what was printed")
    rows: list[dict[str, Any]] = json.loads(text)
    return rows


def run_once(options: Sequence[str], checkout: Checkout | None = None) -> int:
    """Make one run, discard its table, and return its exit status.

    Args:
        options: as in `run_command`.
        checkout: as in `run_command`.

    Raises:
        KeyboardInterrupt: the run or this process was interrupted; the run has ended and its
            record is saved.
    """
    environment = dict(os.environ) if checkout is None else checkout_environment()
    ended = run_each(run_command(options, checkout), [environment], stdout=subprocess.DEVNULL)
    (code,) = ended.codes
    if ended.interrupted or code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return code
