"""End this rank where it waits for good: some of torch's waits have no end of their own."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from bench.measure.rank_ends import first_end
from mnist_cnn.console import EXIT_FAILED
from mnist_cnn.rank import Rank

_LATER_SECONDS = 2.0
"""Seconds that torch's own timeout, which can be told better, is given beyond its end."""


@contextmanager
def waiting_for_ranks(timeout_seconds: float) -> Iterator[None]:
    """Wait for other ranks inside this block, so long and no longer.

    A store answers no client while the rank that keeps it is stopped, and a client reads on.

    Args:
        timeout_seconds: longest time of the block.
    """
    if Rank.from_environment().world_size == 1:
        yield
        return
    timer = threading.Timer(timeout_seconds + _LATER_SECONDS, _give_up, (timeout_seconds,))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _give_up(seconds: float) -> None:
    end = first_end(2.0)
    reason = "another rank did not answer" if end is None else str(end)
    print(f"mnist-bench: error: {reason}, within {seconds:.0f} s", file=sys.stderr, flush=True)
    os._exit(EXIT_FAILED)
