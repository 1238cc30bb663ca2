"""The digest of the code, and the code of commits."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.machine.repository import (
    PROJECT,
    defined_recipes,
    find_commit,
    git_state,
    read_history,
    source_digest,
)

ROOT = Path(__file__).resolve().parents[2]


def test_the_codes_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "bench").mkdir()
    file = tmp_path / "bench" / "a.py"
    file.write_text("1")
    first = source_digest(tmp_path)
    (tmp_path / "bench" / "notes.txt").write_text("not code")
    assert source_digest(tmp_path) == first
    file.write_text("2")
    assert source_digest(tmp_path) != first
    file.write_text("1")
    file.rename(tmp_path / "bench" / "b.py")
    assert source_digest(tmp_path) != first


def test_the_codes_digest_has_the_compiled_steps_sources(tmp_path: Path) -> None:
    native = ROOT / "mnist_cnn" / "kernels" / "native"
    endings = {path.suffix for path in native.iterdir() if path.is_file()} - {".so"}
    assert endings == {".py", ".cpp", ".hpp"}
    folder = tmp_path / "mnist_cnn"
    folder.mkdir()
    for ending in endings:
        before = source_digest(tmp_path)
        (folder / f"code{ending}").write_text("1")
        assert source_digest(tmp_path) != before, ending


def test_recipes_are_read_from_code_that_is_not_run() -> None:
    source = """
A = Recipe(name="a", epochs=3, rate=1e-4)
B = replace(A, name="b", epochs=-1)
C = replace(B, name="c", epochs=2 * 3)
D = A.with_epochs(4)
raise SystemExit
"""
    assert defined_recipes(source) == {
        "a": {"name": "a", "epochs": 3, "rate": 1e-4},
        "b": {"name": "b", "epochs": -1, "rate": 1e-4},
    }
    assert defined_recipes("A = (") == {}


def test_the_recipes_of_this_commit_are_those_of_the_code() -> None:
    history = read_history()
    commit = find_commit(PROJECT, "HEAD")
    if commit is None or commit not in history.commits:
        pytest.skip("not a git checkout")
    assert history.recipes("f" * 40) is None
    assert {"fast", "reference"} <= set(history.recipes(commit) or {})
    committed, dirty = git_state(PROJECT)
    if dirty is False:
        assert committed == commit
        assert history.source_digest(commit) == source_digest(PROJECT)
