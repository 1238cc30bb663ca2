"""One run in a process of its own: what `ab` and `sweep` are made of.

A process that has trained once has warm caches, a grown allocator and compiled code, and what a
second run in it takes is not what a first one does.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench.launch.checkout import Checkout, checkout_environment
from bench.launch.supervisor import run_each
from mnist_cnn.console import EXIT_INTERRUPTED


def run_command(words: Sequence[str], checkout: Checkout | None = None) -> list[str]:
    """What starts one run.

    Args:
        words: options of `mnist-bench run`.
        checkout: the commit to run; None for what is checked out here, changes and all.
    """
    # Not `-m bench`: that needs the project on the path, which a plain checkout is not.
    here = [sys.executable, str(Path(__file__).resolve().parents[1] / "run.py")]
    return [*(here if checkout is None else checkout.run), *words, "--runs", "1", "--quiet"]


def run_once(words: Sequence[str], checkout: Checkout | None = None) -> int:
    """Run it, its table thrown away, and give its exit status.

    Raises:
        KeyboardInterrupt: it or this process was interrupted; it has ended, its record kept.
    """
    environment = dict(os.environ) if checkout is None else checkout_environment()
    ended = run_each(run_command(words, checkout), [environment], stdout=subprocess.DEVNULL)
    (code,) = ended.codes
    if ended.asked or code == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return code
