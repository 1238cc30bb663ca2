"""Another commit of this project, ready to run: a worktree of it, with an environment of its own.

It is kept in the user's cache for the next time, for setting one up takes minutes and gigabytes.
What belongs into the environment, and whether it is complete, that commit's own `scripts/setup`
knows.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from bench.machine.repository import git_state
from bench.machine.system import run_output
from bench.text import printable
from mnist_cnn.errors import UsageError

_SHORT = 12
"""Letters of a commit that name its folder."""
_MISLEADING = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables by which this environment's packages would get into the other."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit, where it lies or is going to."""

    commit: str
    """Its whole name."""
    folder: Path

    @property
    def short(self) -> str:
        """The commit as people read it."""
        return self.commit[:_SHORT]

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        return self.folder / ".venv" / "bin" / "python"

    @property
    def run(self) -> list[str]:
        """The words that start `run` of this commit."""
        return [str(self.python), str(self.folder / "bench" / "run.py")]


def checkouts_folder() -> Path:
    """The folder that worktrees are kept in."""
    return platformdirs.user_cache_path("mnist-bench", appauthor=False) / "commits"


def find_checkout(revision: str, option: str, project: Path) -> Checkout:
    """The commit that a word of the command line stands for; nothing is made yet.

    Args:
        revision: anything that git takes for a commit.
        option: where it was given, for messages.
        project: the checkout whose commits are meant.

    Raises:
        UsageError: there is no such commit, no checkout, or no git.
    """
    if shutil.which("git") is None:
        raise UsageError(f"{option} needs git, which is not installed")
    if not (project / ".git").exists():
        raise UsageError(
            f"{option} needs a git checkout, and {printable(str(project))} is none: "
            "clone the project and run its own mnist-bench"
        )
    found = run_output(
        "git", "-C", str(project), "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}"
    ).strip()
    # A word that begins with a dash may be an option to git, which then answers something else.
    if not re.fullmatch(r"[0-9a-f]{40,64}", found):
        raise UsageError(
            f"{option} {printable(revision)!r} is no commit of {printable(str(project))} "
            "(not fetched yet?)"
        )
    return Checkout(found, checkouts_folder() / found[:_SHORT])


def prepare_checkout(checkout: Checkout, project: Path) -> None:
    """Make the worktree, unless it is there, and have its own `scripts/setup` make it runnable.

    What the set-up says goes to stderr; where all is in place it says nothing.

    Raises:
        UsageError: the worktree cannot be made or was changed, or its set-up failed.
    """
    _add_worktree(checkout, project)
    where = printable(str(checkout.folder))
    if git_state(checkout.folder) != (checkout.commit, False):
        raise UsageError(
            f"{where} is not, or no longer, an unchanged checkout of commit {checkout.short}: "
            "remove that folder, and it is made anew"
        )
    # The same interpreter as here, unless another is asked for: what is compared are commits.
    base: str = getattr(sys, "_base_executable", sys.executable)
    python = os.environ.get("PYTHON") or base
    try:
        status = subprocess.run(
            [checkout.folder / "scripts" / "setup"],
            env=checkout_environment() | {"PYTHON": python},
            stdin=subprocess.DEVNULL,
            stdout=2,  # stderr: the table alone is output
            check=False,
        ).returncode
    except OSError as error:
        raise UsageError(
            f"commit {checkout.short} has no scripts/setup that can be run ({error.strerror}), "
            "so it cannot be compared"
        ) from error
    if status != 0:
        raise UsageError(f"the set-up of commit {checkout.short} in {where} failed; see above")
    if not os.access(checkout.python, os.X_OK):
        raise UsageError(f"the set-up of commit {checkout.short} left no .venv/bin/python")


def checkout_environment() -> dict[str, str]:
    """This process's variables, without those that would mislead another commit's processes."""
    return {
        name: value
        for name, value in os.environ.items()
        # A hook's GIT_DIR would have it say that it is the commit of another repository.
        if name not in _MISLEADING and not name.startswith("GIT_")
    }


def _add_worktree(checkout: Checkout, project: Path) -> None:
    from filelock import FileLock

    try:
        checkout.folder.parent.mkdir(parents=True, exist_ok=True)
        # Somebody else may be making the same one.
        with FileLock(checkout.folder.with_suffix(".lock")):
            if checkout.folder.exists():
                return
            # Forced, for git remembers a worktree whose folder was removed by hand.
            words = ["worktree", "add", "--force", "--detach", "--quiet"]
            done = subprocess.run(
                ["git", "-C", project, *words, checkout.folder, checkout.commit],
                env=checkout_environment(),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                check=False,
            )
    except OSError as error:
        raise UsageError(
            f"cannot keep commit {checkout.short} in {printable(str(checkout.folder.parent))}: "
            f"{error.strerror}"
        ) from error
    if done.returncode != 0:
        said = printable(done.stderr) or f"git ended with status {done.returncode}"
        raise UsageError(f"no worktree of commit {checkout.short} could be made: {said}")
