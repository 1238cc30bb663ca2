"""Another commit of this project, ready to run: a worktree with its own environment.

It stays in the user's cache, because the set-up takes minutes and gigabytes. The commit's own
`scripts/setup` decides what the environment contains and whether it is complete.
"""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from bench.machine import repository
from bench.machine.system import environment_without_git
from bench.text import printable
from mnist_cnn.child_processes import run_child
from mnist_cnn.disk import refusal_of
from mnist_cnn.errors import UsageError, reason_of
from mnist_cnn.user_folders import cache_folder

SETUP_SECONDS = 3600.0
"""Longest time for a commit's set-up: it may load gigabytes."""
_SHORT = 12
"""Number of letters of a commit that name its folder."""
_MISLEADING = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
"""Variables that would bring this environment's packages into the other one."""


@dataclass(frozen=True, slots=True)
class Checkout:
    """A commit and the folder of its worktree, which may not exist yet."""

    commit: str
    """Full name of the commit."""
    folder: Path
    """Folder of the worktree."""

    @property
    def short(self) -> str:
        """Short name of the commit, for people."""
        return self.commit[:_SHORT]

    @property
    def python(self) -> Path:
        """Path of the interpreter in the commit's environment."""
        return self.folder / ".venv" / "bin" / "python"

    @property
    def program(self) -> list[str]:
        """The words that start `run` of this commit."""
        return [str(self.python), str(self.folder / "bench" / "run.py")]


def checkouts_folder() -> Path:
    """The folder of all worktrees."""
    return cache_folder() / "commits"


def find_checkout(revision: str, project: Path) -> Checkout:
    """The commit that a revision stands for. Creates nothing.

    Args:
        revision: any name that git accepts for a commit.
        project: the checkout that has the commit.

    Raises:
        UsageError: there is no such commit, no checkout, or no git.
    """
    where = printable(str(project))
    if not repository.is_git_installed():
        raise UsageError("git is not installed, and another commit needs it")
    if not repository.is_checkout(project):
        raise UsageError(
            f"{where} is not a git checkout: clone the project and run the clone's own mnist-bench"
        )
    commit = repository.find_commit(project, revision)
    if commit is None:
        raise UsageError(
            f"{printable(revision)!r} is not a commit of {where}: fetch it first, or name another"
        )
    return Checkout(commit, checkouts_folder() / commit[:_SHORT])


def prepare_checkout(checkout: Checkout, project: Path) -> None:
    """Create the worktree if it is missing, and let its own `scripts/setup` make it runnable.

    The output of the set-up goes to stderr. If everything is in place, there is none.

    Raises:
        UsageError: the worktree cannot be created, was changed, or its set-up failed.
    """
    _create_worktree(checkout, project)
    where = printable(str(checkout.folder))
    if repository.git_state(checkout.folder) != (checkout.commit, False):
        raise UsageError(
            f"{where} is not an unchanged checkout of commit {checkout.short}: remove that folder "
            "and run the same command again"
        )
    # The same interpreter as here, unless PYTHON names another: only the commits should differ.
    base: str = getattr(sys, "_base_executable", sys.executable)
    python = os.environ.get("PYTHON") or base
    setup = checkout.folder / "scripts" / "setup"
    if not os.access(setup, os.X_OK):
        raise UsageError(
            f"commit {checkout.short} has no scripts/setup that can be run, so it cannot be "
            "compared"
        )
    try:
        status = run_child(
            [str(setup)],
            environment=checkout_environment() | {"PYTHON": python},
            timeout_seconds=SETUP_SECONDS,
            watchdog=True,  # also what it has started ends with this process
            output_to=2,  # stderr: stdout is for the table only
        ).returncode
    except subprocess.TimeoutExpired:
        raise UsageError(
            f"the set-up of commit {checkout.short} in {where} was not done after "
            f"{SETUP_SECONDS / 60:.3g} minutes and was ended: run scripts/setup there yourself"
        ) from None
    except OSError as error:
        raise UsageError(
            f"commit {checkout.short} has no scripts/setup that can be run ({reason_of(error)}), "
            "so it cannot be compared"
        ) from error
    if status != 0:
        raise UsageError(f"the set-up of commit {checkout.short} in {where} failed; see above")
    if not os.access(checkout.python, os.X_OK):
        raise UsageError(f"the set-up of commit {checkout.short} left no .venv/bin/python")


def checkout_environment() -> dict[str, str]:
    """The variables of this process, except those that would mislead another commit's processes."""
    variables = environment_without_git()
    return {name: value for name, value in variables.items() if name not in _MISLEADING}


def _create_worktree(checkout: Checkout, project: Path) -> None:
    # Lazy: psutil is slow to import.
    from mnist_cnn.folder_lock import locked

    def notify(line: str) -> None:
        print(f"mnist-bench: {line}", file=sys.stderr)

    lock_folder = checkout.folder.with_name(f".{checkout.short}")
    purpose = f"creates the worktree of commit {checkout.short}"
    try:
        # Another process may be creating the same worktree.
        with locked(lock_folder, notify, purpose=purpose):
            if not checkout.folder.exists():
                repository.add_worktree(project, checkout.folder, checkout.commit)
    except OSError as error:
        raise UsageError(
            f"cannot keep commit {checkout.short} in {printable(str(checkout.folder.parent))}: "
            f"{refusal_of(error)}"
        ) from error
    except repository.GitFailed as error:
        raise UsageError(
            f"git cannot create a worktree of commit {checkout.short}: {printable(str(error))}"
        ) from error
