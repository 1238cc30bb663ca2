"""The exceptions that mean "the user can correct this"."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UsageError(Exception):
    """Bad input. The message is one line: what is wrong and what to do. Commands exit 2."""


class DamagedCheckpointError(UsageError):
    """A checkpoint is not the one that was written, or is of another training."""


class UnwrittenCheckpointError(Exception):
    """A checkpoint cannot be written, so the run ends. The message is one line and says it all."""


def near_match(given: str, known: Iterable[str]) -> str:
    """``" (did you mean 'fast'?)"`` when a known name is close to `given`, else ``""``."""
    matches = difflib.get_close_matches(given, list(known), n=1, cutoff=0.5)
    return f" (did you mean {matches[0]!r}?)" if matches else ""
