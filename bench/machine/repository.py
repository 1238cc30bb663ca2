"""Which commits the checkout at hand has, and what the code at one of them says of itself."""

from __future__ import annotations

import ast
import hashlib
from dataclasses import dataclass
from pathlib import Path

from bench.machine.system import run_output

PROJECT = Path(__file__).resolve().parents[2]
_MODEL_FILE = "mnist_cnn/model.py"


@dataclass(frozen=True, slots=True)
class History:
    """What git knows of the project."""

    project: Path
    commits: frozenset[str] = frozenset()
    """All that lead to the one checked out."""
    unknown: str | None = None
    """Why a commit that is not among them may be the project's all the same; None: it is not."""

    def parameters(self, commit: str) -> int | None:
        """The parameters that the network of a known commit is asserted to have; None: of none.

        Read, not run: the code may be anybody's.
        """
        if commit not in self.commits:
            return None
        source = run_output("git", "-C", str(self.project), "show", f"{commit}:{_MODEL_FILE}")
        return asserted_parameters(source)


def read_history(project: Path = PROJECT) -> History:
    """The history of the checkout that this code is in."""
    # A copy installed inside somebody else's repository must not answer for theirs.
    if not (project / ".git").exists():
        return History(project, unknown="this is no git checkout: verify in a clone of the project")
    git = ("git", "-C", str(project))
    commits = frozenset(run_output(*git, "rev-list", "HEAD").split())
    if not commits:
        return History(project, unknown="git told nothing of this checkout's history")
    shallow = run_output(*git, "rev-parse", "--is-shallow-repository").strip() == "true"
    unknown = "this clone is shallow: git fetch --unshallow" if shallow else None
    return History(project, commits, unknown)


def asserted_parameters(source: str) -> int | None:
    """`PARAMETERS` of a module that asserts it before it hands out a network.

    None where there is no such number, or nothing asserts it.
    """
    try:
        module = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    asserted = any(
        isinstance(name, ast.Name) and name.id == "PARAMETERS"
        for statement in ast.walk(module)
        if isinstance(statement, ast.Assert)
        for name in ast.walk(statement.test)
    )
    values = [
        statement.value.value
        for statement in module.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.value, ast.Constant)
        and [ast.unparse(target) for target in statement.targets] == ["PARAMETERS"]
    ]
    if not asserted or len(values) != 1 or not isinstance(values[0], int):
        return None
    return values[0]


SOURCES = (".py", ".cpp", ".hpp")
"""How the names of files end that decide what is computed."""


def git_state(project: Path) -> tuple[str | None, bool | None]:
    """The commit checked out, and whether tracked files outside results/ differ from it.

    Records are results, not code: writing one must not make the next one "dirty".
    """
    # A copy installed inside somebody else's repository must not report theirs.
    if not (project / ".git").exists():
        return None, None
    lines = run_output(
        "git",
        "-C",
        str(project),
        "status",
        "--porcelain=v2",
        "--branch",
        "--untracked-files=no",
        "--",
        ".",
        ":(exclude)results",
    ).splitlines()
    head = next((line.split()[-1] for line in lines if line.startswith("# branch.oid ")), None)
    if head is None or head == "(initial)":
        return None, None
    return head, any(not line.startswith("#") for line in lines)


def source_digest(project: Path) -> str:
    """SHA-256 over the code itself, names included: commits say nothing of changes since."""
    digest = hashlib.sha256()
    files = (file for folder in ("bench", "mnist_cnn") for file in (project / folder).rglob("*"))
    for file in sorted(file for file in files if file.suffix in SOURCES):
        content = file.read_bytes()
        digest.update(f"{file.relative_to(project).as_posix()} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()
