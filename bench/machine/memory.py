"""The peak of the memory that a run held."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path

from bench.machine.system import read_field, read_text
from bench.records.schema import PeakMemory

_CLEAR_REFS = Path("/proc/self/clear_refs")


def reset_peak_memory(device_type: str) -> bool:
    """Let the peak count from now on; False where it can only count from the process's start."""
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
    """The most memory held by this process on its device.

    Args:
        device_type: torch's.
        since_reset: what `reset_peak_memory` returned at the start of the span.
    """
    import torch

    span = "since the run began" if since_reset else "since the process began"
    match device_type:
        case "cuda" | "xpu":
            peak = int(torch.get_device_module(device_type).max_memory_allocated())
            return _known_peak(
                peak,
                f"torch.{device_type}.max_memory_allocated {span}: "
                "tensors, without the allocator's reserve and the driver's context",
            )
        case "cpu":
            return _resident_peak(span)
        case _:
            return PeakMemory(bytes=None, source=f"{device_type} keeps no peak of its memory")


def _resident_peak(span: str) -> PeakMemory:
    own = "resident memory of this process, without its workers"
    high_water = read_field(read_text(Path("/proc/self/status")), "VmHWM")
    if high_water is not None:
        kibibytes = int(high_water.removesuffix("kB"))
        return _known_peak(kibibytes * 1024, f"VmHWM {span}: {own}")
    # Linux counts in KiB, macOS in bytes; neither can be reset.
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return _known_peak(peak, f"ru_maxrss since the process began: {own}")


def _known_peak(peak_bytes: int, source: str) -> PeakMemory:
    """Never 0: a counter that stands at nothing has not counted."""
    if peak_bytes > 0:
        return PeakMemory(bytes=peak_bytes, source=source)
    return PeakMemory(bytes=None, source=f"{source}; it counted nothing")
