"""One run in a process of its own: what `ab` and `sweep` are made of.

A process that has trained once has warm caches, a grown allocator and compiled code, and what a
second run in it takes is not what a first one does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from bench import commits
from bench.commits import Checkout
from mnist_cnn.console import EXIT_INTERRUPTED


def command(words: Sequence[str], checkout: Checkout | None = None) -> list[str]:
    """What starts one run.

    Args:
        words: options of `mnist-bench run`.
        checkout: the commit to run; None for what is checked out here, changes and all.
    """
    # Not `-m bench`: that needs the project on the path, which a plain checkout is not.
    here = [sys.executable, str(Path(__file__).resolve().parent / "run.py")]
    return [*(here if checkout is None else checkout.run), *words, "--runs", "1", "--quiet"]


def start(words: Sequence[str], checkout: Checkout | None = None) -> int:
    """Run it, its table thrown away, and give its exit status.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    environment = None if checkout is None else commits.environment()
    done = subprocess.run(
        command(words, checkout), env=environment, stdout=subprocess.DEVNULL, check=False
    )
    if done.returncode == EXIT_INTERRUPTED:
        raise KeyboardInterrupt
    return done.returncode
