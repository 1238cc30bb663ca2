"""Python's garbage collector, held back where there are thousands of records.

Records refer to nothing that refers back to them, so that none is ever garbage to be collected; yet
each time that enough new ones were made the collector goes through all of them.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_collector() -> Iterator[None]:
    """Within, what is no longer referred to still goes; cycles wait until afterwards."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
