"""One run in its own process: the unit of `ab` and `sweep`.

A process that has trained once has warm caches, a grown allocator and compiled code, so a second
run in it would take another time than the first.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.launch.checkout import Checkout, checkout_environment
from bench.launch.supervisor import run_each
from mnist_cnn.console import EXIT_INTERRUPTED

Notify = Callable[[str], None]
"""Shows a line to the user."""


def run_command(options: Sequence[str], checkout: Checkout | None = None) -> list[str]:
    """The command line that starts one run.

    Args:
        options: options of `mnist-bench run`.
        checkout: the commit to run; None for the code in this checkout, with its uncommitted
            changes.
    """
    # Not `-m bench`: that needs the project on the path, and a plain checkout is not on it.
    own_program = [sys.executable, str(Path(__file__).resolve().parents[1] / "run.py")]
    program = own_program if checkout is None else checkout.program
    return [*program, *options, "--runs", "1", "--quiet"]


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
