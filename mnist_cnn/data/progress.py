"""How a long transfer reports its progress."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int | None], None]
"""Called with the activity, the bytes done, and the bytes in all (None while unknown)."""


def silent(what: str, done_bytes: int, total_bytes: int | None) -> None:
    """Report nothing."""
