"""How a long transfer tells whoever watches it how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with what is going on, the bytes done, and the bytes in all, or None while unknown."""


def silent(what: str, done_bytes: int, total_bytes: int | None) -> None:
    """Tell nobody."""
