"""The peak memory of a run."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress

from bench.machine.system import PROC, read_field, read_proc
from bench.records.schema import PeakMemory

_CLEAR_REFS = PROC / "self" / "clear_refs"


def reset_peak_memory(device_type: str) -> bool:
    """Restart the peak now; returns False if the peak always counts from the process's start."""
    import torch

    match device_type:
        case "cuda" | "xpu":
            torch.get_device_module(device_type).reset_peak_memory_stats()
            return True
        case "cpu":
            # Source: proc(5), /proc/pid/clear_refs: 5 resets the peak resident set (VmHWM).
            with suppress(OSError):
                _CLEAR_REFS.write_text("5")
                return True
    return False


def peak_memory(device_type: str, *, since_reset: bool = False) -> PeakMemory:
    """The peak memory of this process on its device.

    Args:
        device_type: torch's name of the device.
        since_reset: what `reset_peak_memory` returned at the start of the run.
    """
    import torch

    span = "since the run began" if since_reset else "since the process began"
    match device_type:
        case "cuda" | "xpu":
            peak = int(torch.get_device_module(device_type).max_memory_allocated())
            return _peak(
                peak,
                f"torch.{device_type}.max_memory_allocated {span}: "
                "tensors, without the allocator's reserve and the driver's context",
            )
        case "cpu":
            return _resident_peak(span)
        case _:
            return PeakMemory(bytes=None, source=f"{device_type} keeps no peak of its memory")


def _resident_peak(span: str) -> PeakMemory:
    scope = "resident memory of this process, without its workers"
    high_water = read_field(read_proc("self/status"), "VmHWM")
    if high_water is not None:
        kibibytes = int(high_water.removesuffix("kB"))
        return _peak(kibibytes * 1024, f"VmHWM {span}: {scope}")
    # Linux counts in KiB, macOS in bytes; neither can be reset.
    unit_bytes = 1 if sys.platform == "darwin" else 1024
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit_bytes
    return _peak(peak_bytes, f"ru_maxrss since the process began: {scope}")


def _peak(peak_bytes: int, source: str) -> PeakMemory:
    """The peak, or null if the counter is 0: such a counter does not work."""
    if peak_bytes > 0:
        return PeakMemory(bytes=peak_bytes, source=source)
    return PeakMemory(bytes=None, source=f"{source}; it counted nothing")
