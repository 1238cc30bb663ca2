"""Measurements of the machine during a run: load, memory, energy and device state.

A value that the platform does not report is null, never guessed. torch is imported inside the
functions that need it.
"""

from __future__ import annotations

import sys

from bench.machine.device_state import DeviceMonitor
from bench.machine.energy import CounterReader, EnergyMeter, cpu_counters, gpu_counters, no_counters
from bench.machine.load import LoadMeter
from bench.machine.memory import peak_memory, reset_peak_memory
from bench.machine.nvml import Gpu, open_gpus
from bench.machine.system import NotReported
from bench.machine.zeus_energy import amd_gpu_counters, apple_counters
from bench.records.schema import Energy, Load, Monitoring, PeakMemory
from mnist_cnn.rank import Rank


class Meter:
    """Measures the machine from `start` to `stop`."""

    def __init__(self, device_type: str, runs_at_a_time: int = 1) -> None:
        """Create the meter of this process; each rank has its own.

        Args:
            device_type: torch's name of the device that trains.
            runs_at_a_time: number of runs that share the machine.
        """
        self._device_type = device_type
        self._load = LoadMeter()
        self._memory_is_this_runs = False
        gpus, source = find_gpus(device_type)
        self._monitor = DeviceMonitor(gpus, source)
        self._energy = EnergyMeter(*energy_counters(device_type, gpus, source, runs_at_a_time))

    def start(self) -> None:
        """Begin to measure."""
        self._memory_is_this_runs = reset_peak_memory(self._device_type)
        self._monitor.start()
        self._load.start()
        # Energy starts last and stops first, so that it does not include the other readings.
        self._energy.start()

    def own_cpu_seconds(self) -> float:
        """Core-seconds that this process and its children have used since `start`.

        0 on every machine except that of rank 0: only that machine's load is recorded.
        """
        rank = Rank.from_environment()
        return self._load.own_cpu_seconds() if rank.is_on_main_machine else 0.0

    def stop(self, own_seconds: float | None = None) -> tuple[Load, PeakMemory, Energy, Monitoring]:
        """Stop measuring.

        Args:
            own_seconds: core-seconds of all ranks *on this machine*; None to use this process's,
                which is right for one rank.
        """
        energy = self._energy.stop()
        load = self._load.stop(own_seconds)
        memory = peak_memory(self._device_type, since_reset=self._memory_is_this_runs)
        return load, memory, energy, self._monitor.stop()


def find_gpus(device_type: str) -> tuple[list[Gpu], str]:
    """The GPUs of this machine's ranks, and their source or why there are none.

    Only rank 0 gets them, because only its record is kept.
    """
    if device_type == "cpu":
        return [], "no GPU trained"
    if device_type != "cuda":
        return [], f"no counters of {device_type} devices are known"
    rank = Rank.from_environment()
    if not rank.is_main:
        return [], "rank 0 monitors them"
    import torch

    if torch.version.hip is not None:
        return [], "NVML is for NVIDIA's GPUs"
    ranks = rank.local_world_size
    if ranks > torch.cuda.device_count():
        return [], f"rank 0 sees {torch.cuda.device_count()} of the GPUs of {ranks} ranks"
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(ranks)]
    try:
        return open_gpus(uuids), "NVML"
    except NotReported as reason:
        return [], str(reason)


def energy_counters(
    device_type: str, gpus: list[Gpu], source: str, runs_at_a_time: int
) -> tuple[CounterReader, CounterReader | None]:
    """The energy counters of the device, and those of the host if it is a separate part.

    Args:
        device_type: torch's name of the device that trains.
        gpus: the GPUs that train.
        source: why `gpus` is empty, if it is.
        runs_at_a_time: number of runs that share the machine.
    """
    one_package = device_type in ("cpu", "mps")  # an Apple GPU is in the processor's package
    if runs_at_a_time > 1:
        none = no_counters(
            f"{runs_at_a_time} runs were made at a time, and the counters cannot separate them"
        )
        return none, None if one_package else none
    if _on_several_machines():
        none = no_counters("other machines trained too, and their counters are not read")
        return none, None if one_package else none
    host = apple_counters() if sys.platform == "darwin" else cpu_counters()
    if one_package:
        return host, None
    if not gpus and _are_amd(device_type):
        return amd_gpu_counters(Rank.from_environment().local_world_size), host
    return gpu_counters(gpus) if gpus else no_counters(source), host


def _are_amd(device_type: str) -> bool:
    """Whether torch's "cuda" devices are AMD's; for rank 0, whose record is kept."""
    if device_type != "cuda" or not Rank.from_environment().is_main:
        return False
    import torch

    return torch.version.hip is not None


def _on_several_machines() -> bool:
    rank = Rank.from_environment()
    return rank.local_world_size < rank.world_size
