"""What git knows of this project: commits, state, worktrees; and the digest of the code.

The only place that runs git.
"""

from __future__ import annotations

import ast
import hashlib
import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bench.machine.system import (
    COMMAND_SECONDS,
    NotReported,
    environment_without_git,
    require_output,
    run_output,
)
from bench.text import printable
from mnist_cnn.child_processes import run_child

PROJECT = Path(__file__).resolve().parents[2]
"""The folder that this code runs from."""
SOURCE_SUFFIXES = (".py", ".cpp", ".hpp", ".cu", ".cuh")
"""Suffixes of the files that decide what is computed."""
WORKTREE_SECONDS = 600.0
"""Longest time for a worktree: its files are of some megabytes, on a slow disk."""
_SOURCE_FOLDERS = ("bench", "mnist_cnn")
_PATH = re.compile(r"'[^']*'|\"[^\"]*\"|(?<!\w)/\S+")
"""What in a message of git may name a folder of this machine."""
NO_CHECKOUT = "the code is no git checkout"
"""`CodeState.unknown_reason` of an installed copy."""
_MODEL_FILE = "mnist_cnn/model.py"
_RECIPE_FILE = "mnist_cnn/recipe.py"


class GitFailed(Exception):
    """A git command failed; the message is what git printed."""


@dataclass(frozen=True, slots=True)
class History:
    """The commits of the project."""

    project: Path
    """Folder of the checkout."""
    commits: frozenset[str] = frozenset()
    """The checked-out commit and all its ancestors."""
    unknown: str | None = None
    """Why another commit may belong to the project as well; None if it cannot."""

    def parameters(self, commit: str) -> int | None:
        """Number of parameters that the model asserts at a commit; None if unknown.

        The code is read, not run: anybody may have written it.
        """
        if commit not in self.commits:
            return None
        return asserted_parameters(_git(self.project, "show", f"{commit}:{_MODEL_FILE}"))

    def source_digest(self, commit: str) -> str | None:
        """What `source_digest` gives in a clean checkout of a commit; None if unknown."""
        if commit not in self.commits:
            return None
        archive = _archive(self.project, commit, *_SOURCE_FOLDERS)
        if not archive:
            return None
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            contents = {
                PurePosixPath(member.name): file.read()
                for member in tar
                if member.isfile() and (file := tar.extractfile(member)) is not None
            }
        return _digest_of(contents)

    def recipes(self, commit: str) -> dict[str, dict[str, object]] | None:
        """The recipes that the code of a commit defines, by name; None if it cannot be read.

        The code is read, not run: anybody may have written it.
        """
        if commit not in self.commits:
            return None
        return defined_recipes(_git(self.project, "show", f"{commit}:{_RECIPE_FILE}")) or None


def read_history(project: Path = PROJECT) -> History:
    """The history of the checkout that this code is in."""
    if not is_checkout(project):
        return History(project, unknown="this is no git checkout: verify in a clone of the project")
    try:
        commits = frozenset(require_output("git", "-C", str(project), "rev-list", "HEAD").split())
    except NotReported as error:
        reason = _git_reason(str(error))
        return History(project, unknown=f"git reports no history of this checkout: {reason}")
    if not commits:
        return History(project, unknown="git reports no history of this checkout")
    shallow = _git(project, "rev-parse", "--is-shallow-repository").strip() == "true"
    unknown = "this clone is shallow: git fetch --unshallow" if shallow else None
    return History(project, commits, unknown)


def asserted_parameters(source: str) -> int | None:
    """The constant `PARAMETERS` of a module that asserts it.

    None if there is no such number, or if no assertion uses it.
    """
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    is_asserted = any(
        isinstance(node, ast.Name) and node.id == "PARAMETERS"
        for statement in ast.walk(module)
        if isinstance(statement, ast.Assert)
        for node in ast.walk(statement.test)
    )
    values = [
        statement.value.value
        for statement in module.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and [ast.unparse(target) for target in statement.targets] == ["PARAMETERS"]
    ]
    if not is_asserted or len(values) != 1 or not isinstance(values[0], int):
        return None
    return values[0]


def defined_recipes(source: str) -> dict[str, dict[str, object]]:
    """The recipes of a module that writes them down, each with its values, by name.

    What is computed, not written down, is left out.
    """
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return {}
    by_variable: dict[str, dict[str, object]] = {}
    for statement in module.body:
        if not isinstance(statement, ast.Assign) or not isinstance(statement.value, ast.Call):
            continue
        values = _recipe_values(statement.value, by_variable)
        if values is not None:
            by_variable |= {ast.unparse(target): values for target in statement.targets}
    return {str(values["name"]): values for values in by_variable.values() if "name" in values}


def _recipe_values(
    call: ast.Call, by_variable: Mapping[str, dict[str, object]]
) -> dict[str, object] | None:
    """The values of ``Recipe(...)`` or ``replace(OTHER, ...)``; None for anything else."""
    base: dict[str, object] | None = None
    match ast.unparse(call.func), [ast.unparse(argument) for argument in call.args]:
        case "Recipe", []:
            base = {}
        case "replace", [other]:
            base = by_variable.get(other)
    if base is None:
        return None
    try:
        given = {word.arg: ast.literal_eval(word.value) for word in call.keywords if word.arg}
    except ValueError:
        return None
    return base | given


def is_checkout(project: Path) -> bool:
    """Whether the folder itself is a git checkout.

    A copy inside another repository (site-packages, for example) is none: git would answer for
    that repository.
    """
    return (project / ".git").exists()


@dataclass(frozen=True, slots=True)
class CodeState:
    """Which commit is checked out."""

    commit: str | None = None
    """Full name of the commit; None if unknown."""
    dirty: bool | None = None
    """Whether tracked files outside results/ differ from it; None if unknown."""
    unknown_reason: str | None = None
    """Why the commit is unknown, in one line without paths; None where it is known."""


def code_state(project: Path) -> CodeState:
    """The checked-out commit, and whether tracked files outside results/ differ from it.

    Records are results, not code: writing one must not make the next one "dirty".
    """
    if not is_checkout(project):
        return CodeState(unknown_reason=NO_CHECKOUT)
    words = ["--porcelain=v2", "--branch", "--untracked-files=no", "--", ".", ":(exclude)results"]
    try:
        output = require_output("git", "-C", str(project), "status", *words)
    except NotReported as error:
        return CodeState(unknown_reason=_git_reason(str(error)))
    lines = output.splitlines()
    head = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    if head is None or head == "(initial)":
        return CodeState(unknown_reason="the checkout has no commit")
    return CodeState(head, any(not line.startswith("#") for line in lines))


def git_state(project: Path) -> tuple[str | None, bool | None]:
    """Commit and state as in `code_state`."""
    state = code_state(project)
    return state.commit, state.dirty


def _git_reason(failure: str) -> str:
    """Why git does not answer, without the names of folders: records hold it."""
    if "dubious ownership" in failure:
        return (
            "git refuses the checkout, which another user owns (dubious ownership): allow it with "
            "git config --global --add safe.directory"
        )
    return printable(_PATH.sub("...", failure))[:200]


def is_git_installed() -> bool:
    """Whether there is a git command."""
    return shutil.which("git") is not None


def find_commit(project: Path, revision: str) -> str | None:
    """The full name of the commit that a revision stands for; None if there is no such commit."""
    commit = _git(project, "rev-parse", "--verify", "--quiet", f"{revision}^{{commit}}").strip()
    # A revision that starts with a dash may be an option of git, and the answer something else.
    return commit if re.fullmatch(r"[0-9a-f]{40,64}", commit) else None


def add_worktree(project: Path, folder: Path, commit: str) -> None:
    """Check a commit out into a new folder, as a worktree.

    Of a worktree that is not whole nothing is left.

    Raises:
        GitFailed: git refused, or takes too long.
        OSError: git could not be started.
    """
    # --force: git remembers a worktree whose folder was removed by hand.
    options = ["--force", "--detach", "--quiet"]
    try:
        completed = run_child(
            ["git", "-C", str(project), "worktree", "add", *options, str(folder), commit],
            environment=environment_without_git(),
            timeout_seconds=WORKTREE_SECONDS,
            watchdog=True,
        )
        if completed.returncode != 0:
            raise GitFailed(completed.stderr.strip() or f"exit status {completed.returncode}")
    except subprocess.TimeoutExpired:
        shutil.rmtree(folder, ignore_errors=True)
        raise GitFailed(f"git was not done after {WORKTREE_SECONDS / 60:.3g} minutes") from None
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def source_digest(project: Path) -> str:
    """SHA-256 of the code and its file names: a commit does not cover later changes."""
    files = (file for folder in _SOURCE_FOLDERS for file in (project / folder).rglob("*"))
    return _digest_of(
        {
            PurePosixPath(file.relative_to(project).as_posix()): file.read_bytes()
            for file in files
            if file.suffix in SOURCE_SUFFIXES
        }
    )


def _digest_of(contents: Mapping[PurePosixPath, bytes]) -> str:
    """SHA-256 of source files and their names; other files do not count."""
    digest = hashlib.sha256()
    for name in sorted(name for name in contents if name.suffix in SOURCE_SUFFIXES):
        digest.update(f"{name} {len(contents[name])}\n".encode())
        digest.update(contents[name])
    return digest.hexdigest()


def _archive(project: Path, commit: str, *folders: str) -> bytes:
    """The files of a commit below some folders, as a tar archive; empty if git fails."""
    try:
        completed = subprocess.run(
            ["git", "-C", project, "archive", "--format=tar", commit, "--", *folders],
            env=environment_without_git(),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return b""
    return completed.stdout if completed.returncode == 0 else b""


def _git(project: Path, *words: str) -> str:
    """The output of a git command; empty if it fails."""
    return run_output("git", "-C", str(project), *words)
