"""Changes one thing at a time in the code that guards results, and sees whether a test notices.

    .venv/bin/python scripts/mutants.py --each 11 --seed 0

Each mutant is tried in a copy of the working tree, in the folder for temporary files, by the tests
of its file. One that no test notices "survives": look whether it matters. Mutants of a seed are the
same as long as the code is.
"""

from __future__ import annotations

import ast
import os
import queue
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from mnist_cnn.console import run
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import exit_process

ROOT = Path(__file__).resolve().parents[1]
NATIVE = "mnist_cnn/kernels/native/libnative.so"
TARGETS = {
    "bench/records/store.py": ("tests/records/test_store.py",),
    "bench/launch/supervisor.py": ("tests/launch/test_supervisor.py",),
    "bench/measure/runner.py": ("tests/measure/test_runner.py",),
    "bench/analysis/gate.py": (
        "tests/analysis/test_gate.py",
        "tests/analysis/test_gate_simulation.py",
    ),
    "bench/verify/": ("tests/verify",),
    "mnist_cnn/disk.py": ("tests/mnist_cnn/test_disk.py",),
}
"""Files or folders that are changed, and their tests."""
MOST_SECONDS = 600.0
"""Longest time of a target's tests without a mutant."""
_OPPOSITES: dict[type[ast.AST], str] = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==",
    ast.Is: "is not", ast.IsNot: "is", ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@dataclass(frozen=True, slots=True, order=True)
class Mutant:
    """A file with one change."""

    path: str
    line: int
    column: int
    """Of the first changed byte in its line."""
    end_line: int
    end_column: int
    text: str
    """What stands there instead."""
    tests: tuple[str, ...]

    def apply(self, source: str) -> str:
        """The changed source."""
        lines = source.encode().splitlines(keepends=True)
        start = sum(map(len, lines[: self.line - 1])) + self.column
        end = sum(map(len, lines[: self.end_line - 1])) + self.end_column
        whole = source.encode()
        return (whole[:start] + self.text.encode() + whole[end:]).decode()

    def describe(self, source: str) -> str:
        """The changed line, before and after."""
        after = self.apply(source).splitlines()[self.line - 1].strip()
        return f"{self.path}:{self.line}: {source.splitlines()[self.line - 1].strip()} -> {after}"


def mutants_of(path: str, tests: tuple[str, ...]) -> Iterator[Mutant]:
    """Every mutant of a file that this script makes."""
    source = (ROOT / path).read_text(encoding="utf-8")

    def changed(node: ast.expr | ast.stmt, text: str) -> Mutant:
        assert node.end_lineno is not None
        assert node.end_col_offset is not None
        place = (node.lineno, node.col_offset, node.end_lineno, node.end_col_offset)
        return Mutant(path, *place, text, tests)

    tree = ast.parse(source)
    decorators = {
        id(inner)
        for node in ast.walk(tree)
        for decorator in getattr(node, "decorator_list", [])
        for inner in ast.walk(decorator)
    }
    for node in ast.walk(tree):
        if id(node) in decorators:  # what is frozen is so for readers
            continue
        match node:
            case ast.Compare(ops=[operator], comparators=[right]) if type(operator) in _OPPOSITES:
                sides = ast.unparse(node.left), ast.unparse(right)
                yield changed(node, f"({sides[0]} {_OPPOSITES[type(operator)]} {sides[1]})")
            case ast.BoolOp(op=operator, values=values):
                word = " or " if isinstance(operator, ast.And) else " and "
                yield changed(node, "(" + word.join(f"({ast.unparse(v)})" for v in values) + ")")
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                yield changed(node, f"({ast.unparse(operand)})")
            case ast.Constant(value=bool(value)):
                yield changed(node, str(not value))
            case ast.Constant(value=int(value)):
                yield changed(node, str(value + 1))
            case ast.BinOp(op=ast.Add() | ast.Sub(), left=left, right=right):
                sign = "-" if isinstance(node.op, ast.Add) else "+"
                yield changed(node, f"({ast.unparse(left)} {sign} {ast.unparse(right)})")
            case ast.Return(value=value) if value is not None and ast.unparse(value) != "None":
                yield changed(node, "return None")
            case ast.Expr(value=ast.Call()) | ast.Raise() | ast.Continue() | ast.Break():
                yield changed(node, "pass")


def choose(each: int, seed: int) -> list[Mutant]:
    """Some mutants of each target."""
    drawn = random.Random(seed)
    chosen: list[Mutant] = []
    for target, tests in TARGETS.items():
        paths = sorted(ROOT.glob(f"{target}*.py")) if target.endswith("/") else [ROOT / target]
        names = [path.relative_to(ROOT).as_posix() for path in paths]
        every = sorted(mutant for name in names for mutant in mutants_of(name, tests))
        chosen += drawn.sample(every, min(each, len(every)))
    return chosen


def copy_tree(folder: Path) -> None:
    """Copy the working tree, as a checkout: what git knows or would, and the compiled library.

    With the history: tests ask git for the commits of records, and for the committed records.
    """
    subprocess.run(["git", "clone", "--quiet", "--no-checkout", ROOT, folder], check=True)
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    for name in {*filter(None, listed.stdout.decode().split("\0")), NATIVE}:
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    for words in (["add", "--all"], ["commit", "--quiet", "--allow-empty", "-m", "copy"]):
        own = ["-c", "user.name=mutants", "-c", "user.email=mutants@localhost"]
        subprocess.run(["git", *own, *words], cwd=folder, check=True)


def passes(tests: tuple[str, ...], folder: Path, timeout_seconds: float) -> bool:
    """Whether the tests of a copy of the tree pass in time."""
    words = ["-x", "-q", "-n0", "-m", "not thorough", "-p", "no:cacheprovider", *tests]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", *words],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=timeout_seconds,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return False
    return done.returncode == 0


def is_noticed(mutant: Mutant, folder: Path, timeout_seconds: float) -> bool:
    """Whether a test of a copy of the tree fails, or does not end, with the mutant in it."""
    path = folder / mutant.path
    source = path.read_text(encoding="utf-8")
    path.write_text(mutant.apply(source), encoding="utf-8")
    try:
        return not passes(mutant.tests, folder, timeout_seconds)
    finally:
        path.write_text(source, encoding="utf-8")


def seconds_without_mutants(folder: Path) -> dict[tuple[str, ...], float]:
    """What the tests of each target take.

    Raises:
        UsageError: they do not pass.
    """
    seconds: dict[tuple[str, ...], float] = {}
    for tests in TARGETS.values():
        began = time.monotonic()
        if not passes(tests, folder, MOST_SECONDS):
            raise UsageError(f"{' '.join(tests)} do not pass without a mutant")
        seconds[tests] = time.monotonic() - began
    return seconds


@app.command()
def mutate(
    each: Annotated[int, typer.Option(help="Number of mutants of each target.")] = 11,
    seed: Annotated[int, typer.Option(help="Seed of the choice.")] = 0,
    at_once: Annotated[int, typer.Option(help="Number of copies that are tried at once.")] = 2,
    minutes: Annotated[float, typer.Option(help="Begin no mutant after this time.")] = 60.0,
) -> None:
    """Try mutants, and print those that no test notices."""
    chosen, end = choose(each, seed), time.monotonic() + 60 * minutes
    random.Random(seed).shuffle(chosen)  # so that a part of them is of all targets
    noticed, tried = Counter[str](), Counter[str]()
    with tempfile.TemporaryDirectory(prefix="mutants-") as temporary:
        folders: queue.Queue[Path] = queue.Queue()
        for number in range(at_once):
            copy_tree(Path(temporary) / str(number))
            folders.put(Path(temporary) / str(number))
        usual = seconds_without_mutants(Path(temporary) / "0")

        def attempt(mutant: Mutant) -> bool | None:
            if time.monotonic() > end:
                return None
            folder = folders.get()
            try:
                return is_noticed(mutant, folder, 60 + 4 * usual[mutant.tests])
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(at_once) as pool:
            for mutant, is_killed in zip(chosen, pool.map(attempt, chosen), strict=True):
                if is_killed is None:
                    continue
                target = next(name for name in TARGETS if mutant.path.startswith(name))
                tried[target] += 1
                noticed[target] += is_killed
                if not is_killed:
                    source = (ROOT / mutant.path).read_text(encoding="utf-8")
                    print(mutant.describe(source), flush=True)
    for target in tried:
        print(f"{target}: {noticed[target]} of {tried[target]} noticed")
    print(f"{noticed.total()} of {tried.total()} noticed")


if __name__ == "__main__":
    exit_process(run(app, "mutants", sys.argv[1:]))
