"""How much energy a run used, by the machine's own counters, read before it and after it.

Two are known: NVML's of a GPU's board and RAPL's of processors and their memory. Both are sums
since some start, so two readings are enough, none of them in a timed span. Whatever is not told is
null with the reason, and so is what a counter is too coarse or too narrow for. What they are worth:
docs/energy.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine.nvml import Gpu
from bench.machine.system import NotReported
from bench.records.schema import Energy, Joules

SHORTEST_SECONDS = 2.0
"""Runs below have no energy: NVML's counter moves every 20 to 100 ms, and by the mean of a time
before."""
MOST_WATTS = 600.0
"""No processor package takes more; what a counter that went round may have missed is judged by."""
POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class CounterReading:
    """A counter at one moment."""

    joules: float
    """Since some start."""
    wraps_at_joules: float | None = None
    """Where it starts again from 0; None where it never does."""


Counters = Callable[[], Mapping[str, CounterReading]]
"""Reads some counters, by their names; raises NotTold where they cannot be read."""


class EnergyMeter:
    """Energy from `start` to `stop`.

    Args:
        device: counters of what trains.
        host: counters of the machine beside it; None where it is what trains.
    """

    def __init__(self, device: Counters, host: Counters | None) -> None:
        """Not started."""
        self._device = _Span(device)
        self._host = None if host is None else _Span(host)

    def start(self) -> None:
        """The run begins."""
        if self._host is not None:
            self._host.start()
        self._device.start()

    def stop(self) -> Energy:
        """The run is over."""
        device = self._device.stop()
        return Energy(device=device, host=None if self._host is None else self._host.stop())


class _Span:
    """What some counters counted in a span; a failure at either end is the reason for none."""

    def __init__(self, read: Counters) -> None:
        self._read = read
        self._before: Mapping[str, CounterReading] | NotReported = NotReported(
            "the run was not begun"
        )
        self._began = 0.0

    def start(self) -> None:
        try:
            self._before = self._read()
        except NotReported as reason:
            self._before = reason
        self._began = time.monotonic()

    def stop(self) -> Joules:
        seconds = time.monotonic() - self._began
        try:
            if isinstance(self._before, NotReported):
                raise self._before
            after = self._read()
            return Joules(joules=used_joules(self._before, after, seconds), source=", ".join(after))
        except NotReported as reason:
            return Joules(joules=None, source=str(reason))


def used_joules(
    before: Mapping[str, CounterReading], after: Mapping[str, CounterReading], seconds: float
) -> float:
    """What all of the counters together counted between two readings.

    Args:
        before: by counter.
        after: of the same counters.
        seconds: that lie between.

    Raises:
        NotTold: the readings do not say, or not surely.
    """
    if seconds < SHORTEST_SECONDS:
        raise NotReported(
            f"the run took {seconds:.2g} s: counters are too coarse below {SHORTEST_SECONDS:g} s"
        )
    if before.keys() != after.keys():
        raise NotReported("after the run there were other counters than before it")
    total = 0.0
    for name, start in before.items():
        used, wraps = after[name].joules - start.joules, start.wraps_at_joules
        if used < 0 and wraps is not None:
            used += wraps
        if used < 0:
            raise NotReported(f"{name} ran backwards")
        if wraps is not None and used + wraps <= MOST_WATTS * seconds:
            raise NotReported(f"{name} may have gone round more than once in {seconds:.0f} s")
        total += used
    if total == 0:
        raise NotReported(f"stood still: {', '.join(before)}")
    return total


def gpu_counters(gpus: Sequence[Gpu]) -> Counters:
    """NVML's counters of whole boards: GPU, memory and supply."""

    def read() -> dict[str, CounterReading]:
        return {
            f"NVML's total energy of GPU {index}": CounterReading(
                gpu.ask("TotalEnergyConsumption") / 1e3
            )
            for index, gpu in enumerate(gpus)
        }

    return read


def cpu_counters(powercap: Path = POWERCAP) -> Counters:
    """RAPL's counters of processor packages and, where they are apart, their memory.

    Other zones are parts of these (core, uncore) or hold them (psys). AMD's processors show theirs
    under the same names.
    Source: the kernel's documentation, power/powercap/powercap.rst.

    Args:
        powercap: the kernel's folder of zones.
    """

    def read() -> dict[str, CounterReading]:
        if sys.platform == "darwin":
            raise NotReported("macOS tells it to root alone (powermetrics)")
        readings = {}
        try:
            for zone in sorted(powercap.glob("intel-rapl:*")):
                name = (zone / "name").read_text().strip()
                if name.startswith("package") or name == "dram":
                    readings[f"RAPL's {name} ({zone.name})"] = CounterReading(
                        int((zone / "energy_uj").read_text()) / 1e6,
                        int((zone / "max_energy_range_uj").read_text()) / 1e6,
                    )
        except PermissionError:
            raise NotReported(
                "RAPL's counters may be read by root alone: see docs/energy.md"
            ) from None
        except (OSError, ValueError) as error:
            raise NotReported(f"RAPL's counters cannot be read: {type(error).__name__}") from error
        if not readings:
            raise NotReported("no RAPL counters: not every processor or virtual machine shows them")
        return readings

    return read


def no_counters(reason: str) -> Counters:
    """Counters that nobody can read, and why."""

    def read() -> Mapping[str, CounterReading]:
        raise NotReported(reason)

    return read
