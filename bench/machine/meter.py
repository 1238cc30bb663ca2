"""What is measured of the machine around a run: its load, memory, energy and state.

Whatever a platform does not tell is null, never guessed. torch is imported where it is needed only.
"""

from __future__ import annotations

from bench.machine.device_state import DeviceMonitor
from bench.machine.energy import Counters, EnergyMeter, cpu_counters, gpu_counters, no_counters
from bench.machine.load import LoadMeter
from bench.machine.memory import peak_memory, reset_peak_memory
from bench.machine.nvml import Gpu, open_gpus
from bench.machine.system import NotReported
from bench.records.schema import Energy, Load, Monitoring, PeakMemory
from mnist_cnn.rank import Rank


class Meter:
    """What is measured of the machine between `start` and `stop`."""

    def __init__(self, device_type: str, runs_at_a_time: int = 1) -> None:
        """Meter the process it is made in; several ranks have one each."""
        self._device_type = device_type
        self._load = LoadMeter()
        self._memory_is_this_runs = False
        gpus, source = _gpus(device_type)
        self._monitor = DeviceMonitor(gpus, source)
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
        rank = Rank.from_environment()
        return self._load.own_cpu_seconds() if rank.is_on_main_machine else 0.0

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
    rank = Rank.from_environment()
    if not rank.is_main:
        return [], "rank 0 watches them"
    import torch

    ranks = rank.local_world_size
    if ranks > torch.cuda.device_count():
        return [], f"of {ranks} ranks' GPUs rank 0 is shown {torch.cuda.device_count()}"
    uuids = [str(torch.cuda.get_device_properties(index).uuid) for index in range(ranks)]
    try:
        return open_gpus(uuids), "NVML"
    except NotReported as reason:
        return [], str(reason)


def _counters(
    device_type: str, gpus: list[Gpu], source: str, runs_at_a_time: int
) -> tuple[Counters, Counters | None]:
    """What counts the energy of the device, and of the host where that is something else."""
    one_package = device_type in ("cpu", "mps")  # an Apple GPU is in the processor's
    if runs_at_a_time > 1:
        none = no_counters(
            f"{runs_at_a_time} runs were made at a time, and counters tell none apart"
        )
        return none, None if one_package else none
    if _on_several_machines():
        none = no_counters("other machines trained too, and their counters are not read")
        return none, None if one_package else none
    host = cpu_counters()
    if one_package:
        return host, None
    return gpu_counters(gpus) if gpus else no_counters(source), host


def _on_several_machines() -> bool:
    rank = Rank.from_environment()
    return rank.local_world_size < rank.world_size
