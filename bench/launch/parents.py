"""No process outlives the one that started it. Imports nothing slow."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from mnist_cnn import child_processes

_PR_SET_CHILD_SUBREAPER = 36
_WATCH_SECONDS = 0.5
_POLL_SECONDS = 0.05
_PROGRAMS = ("accelerate", "torchrun", "accelerate_launch.py")
_MODULES = ("torch.distributed.run", "torch.distributed.launch", "accelerate.commands")
_FILES = (
    "torch/distributed/run.py",
    "torch/distributed/launch.py",
    "accelerate/commands/launch.py",
)


def follow_parent(parent: int) -> None:
    """From now on, SIGTERM for this process when its parent dies.

    Linux sends it. Elsewhere a thread looks at the parent every half second.

    Args:
        parent: id of the parent, which may have died already.
    """
    if child_processes.HAS_DEATH_SIGNAL:
        child_processes.end_with_parent(parent)
    else:
        threading.Thread(target=_watch, args=(parent,), daemon=True).start()


def adopt_orphans() -> None:
    """Become the parent of descendants whose parent dies, where the system can do that (Linux).

    Source: prctl(2), PR_SET_CHILD_SUBREAPER
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def wait_for_orphans(longest_seconds: float) -> None:
    """Wait for processes that `adopt_orphans` has brought here: they save what they measured.

    Not for a process with other children: their ends would be taken from whoever waits for them.
    """
    end = time.monotonic() + longest_seconds
    with suppress(ChildProcessError):
        while time.monotonic() < end:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(_POLL_SECONDS)


def has_launcher_above() -> bool:
    """Whether this process's parent is a launcher: a shell's children may outlive the shell."""
    with suppress(OSError):
        content = Path(f"/proc/{os.getppid()}/cmdline").read_bytes().decode(errors="replace")
        words = content.split("\0")
        return any(
            Path(word).name in _PROGRAMS or word.startswith(_MODULES) or word.endswith(_FILES)
            for word in words
        )
    return False


def kill_descendants() -> None:
    """End all descendants of this process at once."""
    import psutil  # only here: it is slow to import

    with suppress(psutil.Error):
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.Error):
                process.kill()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(_WATCH_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
