"""Take out of a command line or a path what a published record must not hold."""

from __future__ import annotations

from collections.abc import Sequence


def redact_addresses(words: Sequence[str]) -> list[str]:
    """The command line with the address of --main-address replaced: a record names no host."""
    option, hidden = "--main-address", "HOST:PORT"
    return [
        hidden
        if before == option
        else f"{option}={hidden}"
        if word.startswith(f"{option}=")
        else word
        for before, word in zip(["", *words[:-1]], words, strict=True)
    ]
