"""How the processes of a run are joined, whoever starts them."""

from __future__ import annotations

from datetime import timedelta

from accelerate.utils import InitProcessGroupKwargs

PROCESS_GROUP_TIMEOUT = timedelta(seconds=120)
"""How long a rank waits for the others before it gives up (Accelerate's default: 30 minutes)."""


def process_group() -> InitProcessGroupKwargs:
    """What Accelerate is to join the ranks with."""
    return InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)
