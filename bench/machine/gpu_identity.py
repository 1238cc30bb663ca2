"""Which GPU trains, beyond its name: capability, size, power limit and highest clocks.

A field that the driver refuses is None. Nothing here is a serial number or a UUID.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from bench.machine.device_state import MEMORY_CLOCK, SM_CLOCK
from bench.machine.nvml import Gpu as NvmlGpu, open_gpus
from bench.machine.system import NotReported, run_output
from bench.records.schema import Gpu

_MILLIWATTS_PER_WATT = 1e3


def describe_gpu(device_type: str) -> Gpu | None:
    """The current GPU of this type; None for a CPU.

    Args:
        device_type: torch's name, "cpu", "cuda", "mps" or "xpu".
    """
    if device_type == "mps":
        # Apple sells a processor of one name with different numbers of GPU cores.
        return _gpu(multiprocessors=apple_gpu_cores(run_output("ioreg", "-rc", "AGXAccelerator")))
    if device_type not in ("cuda", "xpu"):
        return None
    import torch

    properties: Any = torch.get_device_module(device_type).get_device_properties()
    if device_type == "xpu":
        return _gpu(multiprocessors=getattr(properties, "max_compute_units", None))
    if torch.version.hip:
        # As "gfx942:sramecc+:xnack-": what follows the colon are modes.
        name = str(getattr(properties, "gcnArchName", "")).partition(":")[0]
        return _gpu(name or None, properties.multi_processor_count)
    capability = f"{properties.major}.{properties.minor}"
    return identify_gpu(
        capability, properties.multi_processor_count, str(getattr(properties, "uuid", ""))
    )


def identify_gpu(compute_capability: str, multiprocessors: int, uuid: str) -> Gpu:
    """An NVIDIA GPU: what CUDA says, and what NVML adds.

    Args:
        compute_capability: as ``"9.0"``.
        multiprocessors: number of streaming multiprocessors.
        uuid: UUID as CUDA reports it, to find the GPU by; it is not kept.
    """
    try:
        (gpu,) = open_gpus([uuid])
    except NotReported:
        return _gpu(compute_capability, multiprocessors)
    limit = _value_or_none(lambda: gpu.ask("EnforcedPowerLimit", "PowerManagementLimit"))
    return Gpu(
        compute_capability=compute_capability,
        multiprocessors=multiprocessors,
        power_limit_watts=float(round(limit / _MILLIWATTS_PER_WATT)) or None if limit else None,
        max_memory_clock_mhz=_max_clock(gpu, MEMORY_CLOCK),
        max_sm_clock_mhz=_max_clock(gpu, SM_CLOCK),
    )


def apple_gpu_cores(ioreg: str) -> int | None:
    """The number of GPU cores in the output of ``ioreg -rc AGXAccelerator``; None without one."""
    matched = re.search(r'"gpu-core-count" = (\d{1,6})\b', ioreg)
    return int(matched[1]) if matched else None


def _gpu(compute_capability: str | None = None, multiprocessors: int | None = None) -> Gpu:
    return Gpu(
        compute_capability=compute_capability,
        multiprocessors=multiprocessors,
        power_limit_watts=None,
        max_memory_clock_mhz=None,
        max_sm_clock_mhz=None,
    )


def _max_clock(gpu: NvmlGpu, clock: int) -> int | None:
    return _value_or_none(lambda: gpu.ask("MaxClockInfo", about=[clock]))


def _value_or_none(ask: Callable[[], Any]) -> int | None:
    try:
        return int(ask())
    except NotReported:
        return None
