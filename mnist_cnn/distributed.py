"""How the processes of a run are joined, whoever starts them."""

from __future__ import annotations

from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

PROCESS_GROUP_TIMEOUT = timedelta(seconds=120)
"""How long a rank waits for the others before it gives up (Accelerate's default: 30 minutes)."""


def process_group() -> InitProcessGroupKwargs:
    """What Accelerate is to join the ranks with."""
    return InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)


def broadcast_from_main(text: str, accelerator: Accelerator) -> str:
    """The first rank's text, on every rank; to be called by all."""
    if accelerator.num_processes == 1:
        return text
    told = [text]
    broadcast_object_list(told)
    return told[0]
