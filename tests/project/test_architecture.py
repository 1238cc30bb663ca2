"""docs/architecture.md names every room with its charter, and only rooms and files that exist."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "architecture.md"
TREE = re.compile(r"^( *)(\w+)/ +(\S.*)$", re.MULTILINE)
FILES = re.compile(r"^- `([\w/]+)`: (.+)$", re.MULTILINE)


def rooms() -> list[str]:
    """Every folder of Python files in the two packages."""
    folders = {
        file.parent for package in ("bench", "mnist_cnn") for file in (ROOT / package).rglob("*.py")
    }
    return sorted(folder.relative_to(ROOT).as_posix() for folder in folders)


def charter(room: str) -> str:
    """The first paragraph of the room's docstring, in one line."""
    docstring = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text("utf-8")))
    assert docstring, f"{room}/__init__.py states no charter"
    return " ".join(docstring.partition("\n\n")[0].split())


def drawn_rooms() -> dict[str, str]:
    """The charter of each room in the document's tree, by the room's path."""
    charters: dict[str, str] = {}
    parents: list[str] = []
    tree = DOCUMENT.read_text("utf-8").partition("## The rooms")[2].partition("## ")[0]
    for indent, name, sentence in TREE.findall(tree):
        parents = [*parents[: len(indent) // 2], name]
        charters["/".join(parents)] = sentence
    return charters


def test_the_tree_has_every_room_and_no_other() -> None:
    assert sorted(drawn_rooms()) == rooms()


@pytest.mark.parametrize("room", rooms())
def test_a_room_has_the_same_charter_in_the_tree_and_in_its_docstring(room: str) -> None:
    assert drawn_rooms().get(room) == charter(room)


def test_the_list_has_every_file_of_the_rooms_it_names_and_no_other() -> None:
    listed = FILES.findall(DOCUMENT.read_text("utf-8").partition("## The files")[2])
    assert listed
    for folder, names in listed:
        entries = {path.stem for path in (ROOT / folder).glob("*.py")} | {
            path.name for path in (ROOT / folder).iterdir() if (path / "__init__.py").is_file()
        }
        files = {name for name in entries if not name.startswith("__")}
        if "__init__" in entries and folder in ("bench", "mnist_cnn"):
            files -= {Path(room).name for room in rooms() if room.count("/") == 1}
        assert set(re.findall(r"`(\w+)`", names)) == files, folder
