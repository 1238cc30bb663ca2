"""Private data that a published file must not hold: people, machines, addresses, secrets.

Records hold none of it by themselves (`bench.machine.environment`), but they hold words that a
user typed: labels, paths, variables. This module finds what is there by accident, not what was
hidden on purpose.
"""

from __future__ import annotations

import contextlib
import getpass
import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Iterator

from mnist_cnn.disk import home_folder

_ANYWHERE: tuple[tuple[str, re.Pattern[str]], ...] = (
    (
        "a home folder",
        re.compile(r"(?i)(?:\bhome|\busers)[/\\]++[^/\\\s'\"]++|(?<![\w.~-])/root\b"),
    ),
    ("a user at a host", re.compile(r"(?<![\w.+-])[\w.+-]++(?<=\w)@\w[\w-]*+(?:\.[\w-]++)*+")),
    (
        "a host name",
        re.compile(
            r"(?i)(?<![\w-])[\w-]++\.(?:local|lan|internal|intranet|corp|home|localdomain)\b"
            r"|\bip-\d{1,3}(?:-\d{1,3}){3}\b|\bDESKTOP-[A-Z0-9]{7}\b|(?<=[\w-])s-MacBook[\w-]*+"
        ),
    ),
    (
        "a MAC address",
        re.compile(r"(?i)(?<![\w:-])[0-9a-f]{2}([:-])(?:[0-9a-f]{2}\1){4}[0-9a-f]{2}(?![\w:-])"),
    ),
    ("a device's UUID", re.compile(r"(?i)\b[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}\b")),
    (
        "a serial number",
        re.compile(
            r"(?i)\b(?:serial(?:[ _-]?(?:number|no))?|s/n)\W{0,3}+\s*+[^\W\d]*+\d\w*+"
        ),
    ),
    (
        "a token",
        re.compile(
            r"\b(?:hf_|gh[opsur]_|github_pat_|glpat-|sk-|xox[abpr]-)[\w-]{16,}+|\bAKIA[0-9A-Z]{16}\b"
            r"|(?<![\w-])eyJ[\w-]{10,}+\.[\w-]{10,}+|-----BEGIN [A-Z ]{0,40}PRIVATE KEY"
            r"|(?i:(?:token|secret|password|passwd|api[_-]?key)[\"']?+(?:\s*+[=:]| )"
            r"\s*+[\"']?+[^\s\"']{6,}+)"
            r"|(?<!\w)\w++://[^\s/:@]*+:[^\s/@]++@"
        ),
    ),
)  # fmt: skip
"""Every pattern starts where a word does, or repeats without going back (``++``): so the time to
look through a stranger's text grows with its length, not with its square."""
_LONG_HEXADECIMAL = re.compile(r"(?i)(?<![0-9a-z])[0-9a-f]{32,}+(?![0-9a-z])")
_IPV4 = re.compile(r"(?<![\w.])\d{1,3}(?:\.\d{1,3}){3}(?![\w.])")
_IPV6 = re.compile(r"(?<![\w:])(?=[0-9A-Fa-f]{0,4}:)[0-9A-Fa-f:.]{2,48}+(?![\w:])")
"""May be one: `ipaddress` decides."""

_VERSIONS = re.compile(
    r"environment\.(?:packages|torch|torch_build|accelerate|driver|os|python)\b.*"
)
"""Fields whose dotted numbers are versions, not addresses."""
_IDENTIFIERS = re.compile(
    r"run_id|benchmark_id|environment\.commit|commit|dataset\..*|started_at|written_at"
    r"|(?:environment\.|plan\.)?\w*_sha256"
)
"""Fields that hold random or public identifiers, or times."""
_TYPED = re.compile(
    r"label|reason|command\b.*|setup\.(?:environment\b.*|accelerate_config)|file name|text"
)
"""Fields that can hold words that the user typed."""
_COMMON_NAMES = {
    "admin", "bench", "cpu", "cuda", "default", "fast", "localhost", "mnist", "python", "reference",
    "results", "root", "run", "runner", "scratch", "test", "ubuntu", "user", "vagrant",
}  # fmt: skip
"""Names of accounts and hosts that identify nobody, and words of every command line."""
_SHORTEST_NAME = 3
"""Number of characters from which a name is looked for."""
_LONGEST_EXCERPT = 40
"""Number of characters of a leak that a message shows."""


def own_names() -> frozenset[str]:
    """Names of the user and of this machine: contributors verify on their own machine first."""
    home = home_folder()
    names = {home.name} if home is not None else set()
    names |= {socket.gethostname(), socket.gethostname().partition(".")[0]}
    with contextlib.suppress(KeyError, OSError, ImportError):  # the account has no name
        names.add(getpass.getuser())
    return frozenset(
        name
        for name in map(str.lower, names)
        if len(name) >= _SHORTEST_NAME and name not in _COMMON_NAMES
    )


def find_leaks(text: str, names: Iterable[str]) -> Iterator[str]:
    """The private data in a file, one line each, with its place.

    Args:
        text: content of the file: JSON or any other text.
        names: words that the file must not hold; see `own_names`.
    """
    try:
        strings = list(_strings(json.loads(text), ""))
    except (ValueError, RecursionError):
        strings = [("text", text)]
    names = tuple(sorted(names))
    for where, value in strings:
        for kind, leak in _leaks(where, value, names):
            excerpt = leak if len(leak) <= _LONGEST_EXCERPT else f"{leak[:_LONGEST_EXCERPT]}…"
            yield f"{where}: {kind}: {excerpt}"


def find_name_leaks(name: str, names: Iterable[str]) -> Iterator[str]:
    """The private data in a file's name."""
    for kind, leak in _leaks("file name", name, tuple(sorted(names))):
        yield f"its name: {kind}: {leak}"


def _strings(value: object, where: str) -> Iterator[tuple[str, str]]:
    """Every text in a JSON value, keys too, after its path."""
    below = f"{where}." if where else ""
    if isinstance(value, str):
        yield where, value
    elif isinstance(value, list):
        # Joined: an option and its value are two words of a command.
        if value and all(isinstance(item, str) for item in value):
            yield where, " ".join(value)
        else:
            for index, item in enumerate(value):
                yield from _strings(item, f"{below}{index}")
    elif isinstance(value, dict):
        for key, item in value.items():
            yield where or "text", key
            yield from _strings(item, f"{below}{key[:_LONGEST_EXCERPT]}")


def _leaks(where: str, value: str, names: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """The kind and the text of each piece of private data in a value."""
    for kind, pattern in _ANYWHERE:
        if (match := pattern.search(value)) is not None:
            yield kind, match[0]
    if not _VERSIONS.fullmatch(where):
        yield from (("an IP address", text) for text in _addresses(where, value))
    if not _IDENTIFIERS.fullmatch(where) and (match := _LONG_HEXADECIMAL.search(value)):
        yield "an identifier or a key", match[0]
    if _TYPED.fullmatch(where):
        for name in names:
            if re.search(rf"(?i)(?<![a-z0-9]){re.escape(name)}(?![a-z0-9])", value):
                yield "your own or your machine's name", name


def _addresses(where: str, value: str) -> Iterator[str]:
    candidates = _IPV4.findall(value)
    if not _IDENTIFIERS.fullmatch(where):
        candidates += _IPV6.findall(value)
    for text in candidates:
        try:
            address = ipaddress.ip_address(text)
        except ValueError:
            continue
        if not address.is_loopback and not address.is_unspecified:
            yield text
