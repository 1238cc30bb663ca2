"""The state of the device before and after a run: clocks, temperature, power, throttling, users.

Nothing is read during the run. NVML gets one question at a time, because a driver may refuse any
question: the field is null then, with the reason. The load of the machine's cores is in
`bench.machine.load`; here are their clock and their thermal throttling.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import psutil

from bench.machine.nvml import Gpu
from bench.machine.system import NotReported, read_text, whole_number
from bench.records.schema import GpuState, GpuWatch, Monitoring

SM_CLOCK, MEMORY_CLOCK = 1, 2
"""Values of nvmlClockType_t."""
GPU_SENSOR = 0
"""Value of nvmlTemperatureSensors_t."""
POLICIES = {"power": 0, "heat": 1, "board limit": 3}
"""Values of nvmlPerfPolicyType_t for forced slow-downs. The other values are for normal ones: no
work, the voltage, or another GPU of the group."""
REASONS = {
    0x1: "idle",
    0x2: "application clocks",
    0x4: "power cap",
    0x8: "hardware slowdown",
    0x10: "sync boost",
    0x20: "software thermal slowdown",
    0x40: "hardware thermal slowdown",
    0x80: "hardware power brake",
    0x100: "display clocks",
}
"""Bits of NVML's clocks event reasons (nvml.h, nvmlClocksEventReason*)."""
CPUS = Path("/sys/devices/system/cpu")


class DeviceMonitor:
    """Reads the state of the device at `start` and at `stop`.

    Args:
        gpus: the GPUs of the run; that of this process first.
        source: the source of their state, or why there are none.
        cpus: the kernel's folder of processors.
    """

    def __init__(self, gpus: Sequence[Gpu], source: str, cpus: Path = CPUS) -> None:
        """Not started."""
        self._gpus = gpus
        self._source = source
        self._cpus = cpus
        self._states: list[GpuState] = []
        self._throttled: list[dict[str, int] | NotReported] = []
        self._mhz: float | None = None
        self._events: dict[str, int] = {}

    def start(self) -> None:
        """Read the state before the run."""
        self._mhz = _cpu_mhz()
        self._events = throttle_events(self._cpus)
        self._states = [gpu_state(gpu) for gpu in self._gpus]
        self._throttled = [_throttled_nanoseconds(gpu) for gpu in self._gpus]

    def stop(self) -> Monitoring:
        """Read the state after the run."""
        throttled = [_throttled_nanoseconds(gpu) for gpu in self._gpus]
        states = [gpu_state(gpu) for gpu in self._gpus]
        events, source = _more_events(self._events, throttle_events(self._cpus))
        return Monitoring(
            gpus=[
                _watch(*readings)
                for readings in zip(self._states, states, self._throttled, throttled, strict=True)
            ],
            gpus_source=self._source,
            cpu_mhz_before=self._mhz,
            cpu_mhz_after=_cpu_mhz(),
            cpu_throttle_events=events,
            cpu_throttle_source=source,
        )


def gpu_state(gpu: Gpu) -> GpuState:
    """The state of a GPU now."""
    refused: dict[str, str] = {}

    def value_or_none(field: str, ask: Callable[[], Any]) -> Any:
        try:
            return ask()
        except NotReported as reason:
            refused[field] = str(reason)
            return None

    processes = value_or_none("other_processes", lambda: _processes(gpu))
    return GpuState(
        sm_clock_mhz=value_or_none("sm_clock_mhz", lambda: gpu.ask("ClockInfo", about=[SM_CLOCK])),
        memory_clock_mhz=value_or_none(
            "memory_clock_mhz", lambda: gpu.ask("ClockInfo", about=[MEMORY_CLOCK])
        ),
        temperature_celsius=value_or_none(
            "temperature_celsius",
            lambda: gpu.ask("TemperatureV", "Temperature", about=[GPU_SENSOR]),
        ),
        power_watts=value_or_none("power_watts", lambda: gpu.ask("PowerUsage") / 1e3),
        utilization=value_or_none("utilization", lambda: gpu.ask("UtilizationRates").gpu / 100),
        memory_used_bytes=value_or_none("memory_used_bytes", lambda: gpu.ask("MemoryInfo").used),
        throttle_reasons=value_or_none(
            "throttle_reasons",
            lambda: named_reasons(
                gpu.ask("CurrentClocksEventReasons", "CurrentClocksThrottleReasons")
            ),
        ),
        other_processes=None if processes is None else len(processes) - 1,
        others_memory_bytes=value_or_none(
            "others_memory_bytes", lambda: _others_memory_bytes(processes)
        ),
        refused=refused,
    )


def named_reasons(bits: int) -> list[str]:
    """The reasons for which a GPU's clocks are reduced; an unknown bit is named by its value."""
    set_bits = [1 << position for position in range(bits.bit_length()) if bits >> position & 1]
    return [REASONS.get(bit, f"reason {bit:#x}") for bit in set_bits]


def _processes(gpu: Gpu) -> list[tuple[int, int | None]]:
    """Process id and memory in bytes of each process on the GPU; the run is one of them."""
    questions = ("ComputeRunningProcesses", "ComputeRunningProcesses_v2")
    processes = [(process.pid, process.usedGpuMemory) for process in gpu.ask(*questions)]
    if not processes:
        # In a container, a driver may hide all processes.
        raise NotReported("NVML shows no process, not even the run's own")
    return processes


def _others_memory_bytes(processes: list[tuple[int, int | None]] | None) -> int:
    if processes is None:
        raise NotReported("NVML shows no processes")
    if len(processes) == 1:
        return 0
    others = [memory for pid, memory in processes if pid != os.getpid()]
    if len(others) == len(processes):
        # This is another rank's GPU, or a container has its own process ids.
        raise NotReported("it is not known which of the processes is the run's own")
    known = [memory for memory in others if memory is not None]
    if len(known) < len(others):
        raise NotReported("NVML does not report the memory of each process")
    return sum(known)


def _throttled_nanoseconds(gpu: Gpu) -> dict[str, int] | NotReported:
    """How long its clocks have been reduced since the driver was loaded, by policy."""
    try:
        return {
            name: int(gpu.ask("ViolationStatus", about=[policy]).violationTime)
            for name, policy in POLICIES.items()
        }
    except NotReported as reason:
        return reason


def _watch(
    before: GpuState,
    after: GpuState,
    since: dict[str, int] | NotReported,
    until: dict[str, int] | NotReported,
) -> GpuWatch:
    try:
        seconds, source = _passed_seconds(since, until), "NVML's violation times"
    except NotReported as reason:
        seconds, source = None, str(reason)
    return GpuWatch(before=before, after=after, throttled_seconds=seconds, source=source)


def _passed_seconds(
    since: dict[str, int] | NotReported, until: dict[str, int] | NotReported
) -> dict[str, float]:
    if isinstance(since, NotReported):
        raise since
    if isinstance(until, NotReported):
        raise until
    passed = {name: (until[name] - start) / 1e9 for name, start in since.items()}
    if min(passed.values()) < 0:
        raise NotReported("NVML's violation times ran backwards")
    return passed


# The processor


def _cpu_mhz() -> float | None:
    """The mean clock of the cores; None if the system does not report it."""
    try:
        # On some systems psutil has no such function, on others it returns None.
        mhz = float(getattr(psutil.cpu_freq(), "current", 0.0))
    except (OSError, NotImplementedError, RuntimeError, AttributeError):
        return None
    return mhz if mhz > 0 else None


def throttle_events(cpus: Path = CPUS) -> dict[str, int]:
    """How often a core or its package was throttled for its temperature since boot, by file.

    Only Intel's processors have these files, and few virtual machines show them.
    Source: the kernel's documentation, admin-guide/thermal/intel_thermal_throttle.rst.
    """
    counters = {}
    for file in sorted(_throttle_files(cpus)):
        # A core that is switched off has no file.
        count = whole_number(read_text(file).strip())
        if count is not None:
            counters[str(file)] = count
    return counters


def _throttle_files(cpus: Path) -> Iterable[Path]:
    usable = os.sched_getaffinity(0) if sys.platform == "linux" else ()
    for core in usable:
        yield from (cpus / f"cpu{core}" / "thermal_throttle").glob("*_throttle_count")


def _more_events(before: dict[str, int], after: dict[str, int]) -> tuple[int | None, str]:
    """The number of new throttle events, and its source or why it is unknown."""
    common = before.keys() & after.keys()
    if not common:
        return None, "no thermal_throttle counters: only Intel's processors have them"
    # Every core also counts the events of its package, so the result is the maximum, not the sum.
    return max(max(0, after[name] - before[name]) for name in common), "Linux's thermal_throttle"
