"""Regular expressions that read what others wrote take linear time."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import bench
import mnist_cnn
from bench.verify import figure_requests
from mnist_cnn.failure import describe_error

LETTERS = 20_000
MOST_CPU_SECONDS = 0.5
"""A linear pattern takes some milliseconds, a quadratic one seconds."""
PIECES = (
    *("1", "a", "F", ":", ".", "[", "]", " ", "\t", "\n", "-", "/", "'", '"', "(", "@", "=", "`"),
    *("\x1b[", "\x1b]", "<!-- figures ", "a.", "1.", "1:", "a:", "::", "[a", "[a.c", "/a", "home/"),
    *("1 ", "a in ", "a-", "1-1 ", "hf_", "1.1.1.", "e-", "http://a", "Could not fetch URL ", "a@"),
)
LIMITED = {figure_requests.__name__: figure_requests.LONGEST, "mnist_cnn.leftovers": 255}
"""Longest text that a module's patterns see: the latter's are of names of files."""


def patterns() -> Iterator[tuple[str, re.Pattern[str], set[str], int]]:
    """Every pattern of a module: its name, itself, how it is used, and on how much text."""
    for package in (bench, mnist_cnn):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith((".__main__", "bench.run", ".libnative")):
                continue
            path = Path(*found.name.split("."))
            root = Path(package.__path__[0]).parent / path
            file = root / "__init__.py" if found.ispkg else root.with_suffix(".py")
            if not file.exists() or "re.compile" not in file.read_text(encoding="utf-8"):
                continue
            module = importlib.import_module(found.name)
            source = inspect.getsource(module)
            for name, value in vars(module).items():
                for pattern in _inside(value):
                    uses = set(re.findall(rf"\b{name}\.(\w+)\(", source)) or {"search"}
                    yield f"{found.name}.{name}", pattern, uses, LIMITED.get(found.name, LETTERS)


def _inside(value: object) -> Iterator[re.Pattern[str]]:
    """The patterns in a module's value."""
    if isinstance(value, re.Pattern):
        yield value
    elif isinstance(value, tuple | list):
        for each in value:
            yield from _inside(each)


@pytest.mark.slow
def test_every_pattern_takes_linear_time() -> None:
    slow, count = [], 0
    for name, pattern, uses, letters in patterns():
        count += 1
        for piece in PIECES:
            text = piece * (letters // len(piece)) + "\x00"
            began = time.process_time()
            if uses <= {"match", "fullmatch"}:
                pattern.match(text), pattern.fullmatch(text)
            else:
                pattern.sub("", text)
            if time.process_time() - began > MOST_CPU_SECONDS:
                slow.append((name, piece))
    assert count > 20
    assert not slow


@pytest.mark.parametrize("piece", ["1", ":", "1:", "[", "[a.c", "a::"])
def test_an_error_of_any_length_is_described_in_time(piece: str) -> None:
    began = time.process_time()
    described = describe_error(ValueError(piece * 200_000 + "!"))
    assert time.process_time() - began < MOST_CPU_SECONDS
    assert described.startswith("ValueError: ")


@pytest.mark.parametrize(
    ("message", "described"),
    [
        ("[10.0.0.2]:4711 refused", "an address refused"),
        ("to 10.0.0.2:4711: refused", "to an address: refused"),
        ("to fe80:1::2 refused", "to an address refused"),
        ("to [2001:db8::1]:29500 refused", "to an address refused"),
        ("[../third_party/gloo/pair.cc:598] closed", "closed"),
        ("version 2.11.0 of 12:30", "version 2.11.0 of 12:30"),
    ],
)
def test_addresses_are_taken_out(message: str, described: str) -> None:
    assert describe_error(RuntimeError(message)) == f"RuntimeError: {described}"
