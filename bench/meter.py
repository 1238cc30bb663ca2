"""What is measured of the machine around a run: its load, memory, energy and state.

Whatever a platform does not tell is null, never guessed. torch is imported where it is needed only.
"""

from __future__ import annotations

import os
import resource
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil

from bench.energy import Counters, EnergyMeter, boards, processors, untold
from bench.monitor import Monitor
from bench.nvml import Gpu, open_gpus
from bench.records import Energy, Load, Monitoring, PeakMemory
from bench.system import NotTold, field, text
from mnist_cnn.console import is_main_process


class Meter:
    """What is measured of the machine between `start` and `stop`."""

    def __init__(self, device_type: str, runs_at_a_time: int = 1) -> None:
        """Meter the process it is made in; several ranks have one each."""
        self._device_type = device_type
        self._load = LoadMeter()
        self._memory_is_this_runs = False
        gpus, source = _gpus(device_type)
        self._monitor = Monitor(gpus, source)
        self._energy = EnergyMeter(*_counters(device_type, gpus, source, runs_at_a_time))

    def start(self) -> None:
        """The run begins."""
        self._memory_is_this_runs = reset_peak_memory(self._device_type)
        self._monitor.start()
        self._load.start()
        # Last, and first at the end: what the others take is no part of the run's.
        self._energy.start()

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this process and its children have used since `start`.

        0 on other machines than rank 0's, whose load is the one that is recorded.
        """
        first_here = int(os.environ.get("RANK") or 0) - int(os.environ.get("LOCAL_RANK") or 0)
        return self._load.own_cpu_seconds() if first_here == 0 else 0.0

    def stop(self, own_seconds: float | None = None) -> tuple[Load, PeakMemory, Energy, Monitoring]:
        """The run is over.

        Args:
            own_seconds: what all ranks *on this machine* used together; without it, this
                process's, which is right for one rank.
        """
        energy = self._energy.stop()
        load = self._load.stop(own_seconds)
        memory = peak_memory(self._device_type, since_reset=self._memory_is_this_runs)
        return load, memory, energy, self._monitor.stop()


def _gpus(device_type: str) -> tuple[list[Gpu], str]:
    """The GPUs that this machine's ranks compute on, and what tells of them or why there are none.

    Rank 0's alone knows them: its record is the one that is kept.
    """
    if device_type == "cpu":
        return [], "no GPU trained"
    if device_type != "cuda":
        return [], f"no counters of {device_type} devices are known here"
    if not is_main_process():
        return [], "rank 0 watches them"
    import torch

    ranks = int(os.environ.get("LOCAL_WORLD_SIZE") or 1)
    if ranks > torch.cuda.device_count():
        return [], f"of {ranks} ranks' GPUs rank 0 is shown {torch.cuda.device_count()}"
    uuids = [str(torch.cuda.get_device_properties(rank).uuid) for rank in range(ranks)]
    try:
        return open_gpus(uuids), "NVML"
    except NotTold as reason:
        return [], str(reason)


def _counters(
    device_type: str, gpus: list[Gpu], source: str, runs_at_a_time: int
) -> tuple[Counters, Counters | None]:
    """What counts the energy of the device, and of the host where that is something else."""
    one_package = device_type in ("cpu", "mps")  # an Apple GPU is in the processor's
    if runs_at_a_time > 1:
        none = untold(f"{runs_at_a_time} runs were made at a time, and counters tell none apart")
        return none, None if one_package else none
    if _on_several_machines():
        none = untold("other machines trained too, and their counters are not read")
        return none, None if one_package else none
    host = processors()
    if one_package:
        return host, None
    return boards(gpus) if gpus else untold(source), host


def _on_several_machines() -> bool:
    world = int(os.environ.get("WORLD_SIZE") or 1)
    return int(os.environ.get("LOCAL_WORLD_SIZE") or world) < world


class LoadMeter:
    """How much the machine did in a span of time, and how much of it was this run.

    `busy_seconds - own_seconds` is what others took: the core-seconds in which cores were busy
    elsewhere, or the hypervisor had them. Both are kept, so that a reader can judge.
    """

    def __init__(self) -> None:
        """Not started."""
        self._average: float | None = None
        self._busy = (0.0, 0.0)
        self._own = 0.0
        self._began = 0.0

    def start(self) -> None:
        """The span begins."""
        self._average = _load_average()
        self._busy = _busy_and_all_seconds()
        self._own = own_cpu_seconds()
        # The length of this span, not a lap: no device is waited for.
        self._began = time.monotonic()

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this process and its children have used since `start`."""
        return max(0.0, own_cpu_seconds() - self._own)

    def stop(self, own_seconds: float | None = None) -> Load:
        """The span ends.

        Args:
            own_seconds: what all ranks on this machine used together, of several.
        """
        own = self.own_cpu_seconds() if own_seconds is None else own_seconds
        elapsed = time.monotonic() - self._began
        busy, total = (
            now - then for now, then in zip(_busy_and_all_seconds(), self._busy, strict=True)
        )
        return Load(
            load_average_before=self._average,
            load_average_after=_load_average(),
            # Sandboxes without a /proc/stat of their own show counters that stand still.
            busy_seconds=max(0.0, busy) if total > 0 else None,
            own_seconds=own,
            elapsed_seconds=elapsed,
        )


def own_cpu_seconds() -> float:
    """Core-seconds used so far by this process and its children, living and ended."""
    seconds = 0.0
    for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN):
        usage = resource.getrusage(who)
        seconds += usage.ru_utime + usage.ru_stime
    # What ended children used is in RUSAGE_CHILDREN once they have been waited for; those that
    # live (a DataLoader's workers) are asked themselves.
    for child in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            times = child.cpu_times()
            seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def _busy_and_all_seconds() -> tuple[float, float]:
    """Seconds since boot in which the usable cores were busy (or stolen), and all that passed."""
    cores = psutil.cpu_times(percpu=True)
    if sys.platform == "linux":
        usable = os.sched_getaffinity(0)
        cores = [times for index, times in enumerate(cores) if index in usable]
    busy = total = 0.0
    for times in (core._asdict() for core in cores):
        # Linux counts a guest's time into user and nice as well.
        passed = sum(times.values()) - times.get("guest", 0.0) - times.get("guest_nice", 0.0)
        busy += passed - times["idle"] - times.get("iowait", 0.0)
        total += passed
    return busy, total


def _load_average() -> float | None:
    try:
        return os.getloadavg()[0]
    except OSError:
        return None


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
    high_water = field(text(Path("/proc/self/status")), "VmHWM")
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
