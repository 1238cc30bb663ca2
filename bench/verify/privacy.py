"""What a published file must not give away: who made it, where, and what opens their doors.

Records hold none of this by themselves (`bench.machine.environment`), but they hold words that
somebody typed: labels, paths, variables. This finds what slipped in by accident, not what was
hidden.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Iterator
from pathlib import Path

_ANYWHERE: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a home folder", re.compile(r"(?i)(?:\bhome|\busers)[/\\]+[^/\\\s'\"]+|(?<![\w.~-])/root\b")),
    ("a user at a host", re.compile(r"[\w.+-]*\w@\w[\w-]*(?:\.[\w-]+)*")),
    (
        "a host name",
        re.compile(
            r"(?i)\b[\w-]+\.(?:local|lan|internal|intranet|corp|home|localdomain)\b"
            r"|\bip-\d{1,3}(?:-\d{1,3}){3}\b|\bDESKTOP-[A-Z0-9]{7}\b|\b[\w-]+s-MacBook[\w-]*"
        ),
    ),
    (
        "a MAC address",
        re.compile(r"(?i)(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])"),
    ),
    ("a device's UUID", re.compile(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")),
    (
        "a serial number",
        re.compile(r"(?i)\b(?:serial(?:[ _-]?(?:number|no))?|s/n)\W{0,3}\s*\w*\d\w*"),
    ),
    (
        "a token",
        re.compile(
            r"\b(?:hf_|gh[opsur]_|github_pat_|glpat-|sk-|xox[abpr]-)[\w-]{16,}|\bAKIA[0-9A-Z]{16}\b"
            r"|\beyJ[\w-]{10,}\.[\w-]{10,}|-----BEGIN [A-Z ]*PRIVATE KEY"
            r"|(?i:\b[\w-]*(?:token|secret|password|passwd|api[_-]?key)[\"']?\s*[=: ]"
            r"\s*[\"']?[^\s\"']{6,})"
            r"|\w+://[^\s/:@]*:[^\s/@]+@"
        ),
    ),
)  # fmt: skip
_LONG_HEXADECIMAL = re.compile(r"(?i)(?<![0-9a-z])[0-9a-f]{32,}(?![0-9a-z])")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_IPV6 = re.compile(r"(?<![\w:])[0-9A-Fa-f:]*:[0-9A-Fa-f:]*:[0-9A-Fa-f:.]*(?![\w:])")

_VERSIONS = re.compile(
    r"environment\.(?:packages|torch|torch_build|accelerate|driver|os|python)\b.*"
)
"""Fields whose numbers with dots are no addresses."""
_IDENTIFIERS = re.compile(r"run_id|benchmark_id|environment\.commit|commit|dataset\..*|started_at")
"""Fields that hold long hexadecimal numbers or times, made at random or public."""
_TYPED = re.compile(
    r"label|reason|command\b.*|setup\.(?:environment\b.*|accelerate_config)|file name|text"
)
"""Where words of the user's own can be."""
_EVERYBODYS_NAMES = {
    "admin", "bench", "cpu", "cuda", "default", "fast", "localhost", "mnist", "python", "reference",
    "results", "root", "run", "runner", "scratch", "test", "ubuntu", "user", "vagrant",
}  # fmt: skip
"""Names of accounts and hosts that name nobody, and words that every command line has."""
_SHORTEST_NAME = 3
_SHOWN = 40


def own_names() -> frozenset[str]:
    """Names of whoever verifies, and of this machine: who contributes verifies at home first."""
    names = {Path.home().name, socket.gethostname(), socket.gethostname().partition(".")[0]}
    with contextlib.suppress(KeyError, OSError, ImportError):  # an account without a name
        names.add(getpass.getuser())
    return frozenset(
        name
        for name in map(str.lower, names)
        if len(name) >= _SHORTEST_NAME and name not in _EVERYBODYS_NAMES
    )


def find_leaks(text: str, names: Iterable[str]) -> Iterator[str]:
    """What a file gives away, each in one line with where it is.

    Args:
        text: of the file: JSON, or anything.
        names: words that must not be there; see `own_names`.
    """
    try:
        strings = list(_strings(json.loads(text), ""))
    except (ValueError, RecursionError):
        strings = [("text", text)]
    names = tuple(sorted(names))
    for where, value in strings:
        for what, found in _found(where, value, names):
            shown = found if len(found) <= _SHOWN else f"{found[:_SHOWN]}…"
            yield f"{where}: {what}: {shown}"


def find_name_leaks(name: str, names: Iterable[str]) -> Iterator[str]:
    """The same of a file's name."""
    for what, found in _found("file name", name, tuple(sorted(names))):
        yield f"its name: {what}: {found}"


def _strings(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, keys too, with the path to it."""
    below = f"{where}." if where else ""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, list):
        # Together: an option and its value are two words of a command.
        if value and all(isinstance(item, str) for item in value):
            yield where, " ".join(value)
        else:
            for index, item in enumerate(value):
                yield from _strings(item, f"{below}{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield where or "text", key
            yield from _strings(item, f"{below}{key}")


def _found(where: str, value: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for what, pattern in _ANYWHERE:
        if (match := pattern.search(value)) is not None:
            yield what, match[0]
    if not _VERSIONS.fullmatch(where):
        yield from (("an IP address", text) for text in _addresses(where, value))
    if not _IDENTIFIERS.fullmatch(where) and (match := _LONG_HEXADECIMAL.search(value)):
        yield "an identifier or a key", match[0]
    if _TYPED.fullmatch(where):
        for name in names:
            if re.search(rf"(?i)(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", value):
                yield "your own or your machine's name", name


def _addresses(where: str, value: str) -> Iterator[str]:
    found = _IPV4.findall(value)
    if not _IDENTIFIERS.fullmatch(where):
        found += _IPV6.findall(value)
    for text in found:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if not address.is_loopback and not address.is_unspecified:
            yield text
