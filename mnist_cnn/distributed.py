"""Joins the processes of a run, whichever launcher started them."""

from __future__ import annotations

from datetime import timedelta

from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list

PROCESS_GROUP_TIMEOUT = timedelta(seconds=120)
"""Longest time a rank waits for the others (Accelerate's default: 30 minutes)."""


def process_group() -> InitProcessGroupKwargs:
    """The settings with which Accelerate joins the ranks."""
    return InitProcessGroupKwargs(timeout=PROCESS_GROUP_TIMEOUT)


def broadcast_from_main(text: str, accelerator: Accelerator) -> str:
    """Return rank 0's text on every rank; every rank calls this."""
    if accelerator.num_processes == 1:
        return text
    texts = [text]
    broadcast_object_list(texts)
    return texts[0]
