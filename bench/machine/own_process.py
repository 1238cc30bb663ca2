"""The age of this process. Imports nothing slow: the guardian asks before anything is imported."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

_imported_at = time.monotonic()
seconds_before = 0.0
"""Age of the parent when it forked this process; 0 where it was started in another way."""


def seconds_since_start() -> float:
    """Seconds since this process was started, or since the one was from which it was forked.

    Source: on Linux the start time in proc(5), field 22, in ticks of 10 ms since boot; elsewhere
    psutil, which depends on the system's wall clock.
    """
    if sys.platform == "linux":
        try:
            stat = Path("/proc/self/stat").read_text(encoding="utf-8", errors="replace")
        except OSError:  # no /proc: what was before this module was imported is not known
            return seconds_before + time.monotonic() - _imported_at
        # The name, in parentheses, may hold spaces; field 3 is the first after it.
        started = int(stat.rpartition(")")[2].split()[19]) / os.sysconf("SC_CLK_TCK")
        return seconds_before + max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - started)
    import psutil

    return seconds_before + max(0.0, time.time() - psutil.Process().create_time())
