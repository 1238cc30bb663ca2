"""An error in one line, as a record may hold it: without addresses, private paths or decoration."""

from __future__ import annotations

import re

from bench.measure.redaction import redact_paths
from bench.text import printable
from mnist_cnn.errors import shortage

_ADDRESS = re.compile(
    r"\[?(?:[0-9A-Fa-f]*:[0-9A-Fa-f:.]+:[0-9A-Fa-f:.]*|\d+(?:\.\d+){3})\]?(?::\d+)?"
)
"""An IPv4 or IPv6 address, as gloo writes them: ``[10.0.0.2]:4711``."""
_SOURCE = re.compile(r"\[[^\]\s]*\.(?:cc|cpp|cu|h|hpp):\d+\]\s*")
"""Where in C++ an error was raised: a path of the machine that built torch."""
_LONGEST = 500


def describe_error(error: BaseException) -> str:
    """The type of an error and the first line of its message, without what is of no use."""
    name = type(error).__name__
    if short := shortage(error):
        name = f"{short} ({name})"
    # What names a folder of the user says it in another way for records.
    text = str(getattr(error, "public", error))
    lines = [line for line in text.splitlines() if line.strip()]
    message = _SOURCE.sub("", lines[0]) if lines else ""
    message = _ADDRESS.sub("an address", redact_paths(message))
    message = message.encode("ascii", errors="ignore").decode() if "gloo" in message else message
    return printable(f"{name}: {message}".strip().rstrip(":"))[:_LONGEST]
