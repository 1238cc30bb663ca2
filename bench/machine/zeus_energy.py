"""Energy counters of Apple's chips and of AMD's GPUs, by the Zeus project's libraries.

Source: zeus-apple-silicon 1.1, `AppleEnergyMonitor.get_cumulative_energy`; zeus 0.16,
`zeus.device.get_gpus` and `GPUs.get_total_energy_consumption`. Both count in millijoules.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from bench.machine.energy import CounterReader, CounterReading
from bench.machine.system import NotReported

_APPLE_PARTS = ("cpu_total_mj", "gpu_mj", "gpu_sram_mj", "dram_mj", "ane_mj")
"""Parts of the chip that do not contain each other; a chip may lack some."""


def apple_counters() -> CounterReader:
    """A reader of all parts of an Apple chip: processors, GPU, memory, neural engine."""
    monitors: list[Any] = []

    def read() -> Mapping[str, CounterReading]:
        if not monitors:  # one for all readings: it counts from when it was made
            monitors.append(_asked("zeus_apple_silicon", lambda zeus: zeus.AppleEnergyMonitor()))
        values = _answer("zeus_apple_silicon", monitors[0].get_cumulative_energy)
        parts = {name: getattr(values, name, None) for name in _APPLE_PARTS}
        readings = {
            f"Apple's {name.removesuffix('_mj')}": CounterReading(value / 1e3)
            for name, value in parts.items()
            if value is not None
        }
        if not readings:
            raise NotReported("zeus_apple_silicon reads no part of this chip")
        return readings

    return read


def amd_gpu_counters(count: int) -> CounterReader:
    """A reader of whole AMD GPUs.

    Args:
        count: number of GPUs that train: the first ones that this process sees.
    """

    def read() -> Mapping[str, CounterReading]:
        gpus = _asked("zeus.device", lambda device: device.get_gpus())
        values = _answer(
            "zeus", lambda: [gpus.get_total_energy_consumption(index) for index in range(count)]
        )
        return {
            f"zeus's total energy of GPU {index}": CounterReading(value / 1e3)
            for index, value in enumerate(values)
        }

    return read


def _asked(module: str, ask: Callable[[Any], Any]) -> Any:
    """What a module answers.

    Raises:
        NotReported: it is not installed, or does not answer.
    """
    try:
        library = import_module(module)
    except ImportError:
        package = module.partition(".")[0].replace("_", "-")
        raise NotReported(f"needs the package {package}") from None
    except Exception as error:  # a missing driver: each library raises its own kind
        raise NotReported(f"{module} cannot be used: {type(error).__name__}") from error
    return _answer(module, lambda: ask(library))


def _answer(name: str, ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Exception as error:  # a missing driver or right: each library raises its own kind
        raise NotReported(f"{name} cannot read them: {type(error).__name__}") from error
