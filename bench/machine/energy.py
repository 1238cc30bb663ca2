"""The energy that a run used, from the machine's own counters.

There are two kinds of counters: NVML's of a GPU board, and RAPL's of processor packages and their
memory. Both only add up, so one reading before the run and one after it are enough, both outside
timed spans. If a counter is missing, too coarse or may have wrapped twice, the energy is None, with
the reason. docs/energy.md says how accurate the counters are.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.machine.nvml import Gpu
from bench.machine.system import NotReported, whole_number
from bench.records.schema import Energy, Joules

SHORTEST_SECONDS = 2.0
"""Shortest run that has an energy: NVML's counter moves every 20 to 100 ms only, and lags."""
MOST_WATTS = 600.0
"""Highest power assumed of a processor package; says if a counter may have wrapped twice."""
POWERCAP = Path("/sys/class/powercap")


@dataclass(frozen=True, slots=True)
class CounterReading:
    """The value of a counter at one moment."""

    joules: float
    """Energy since the counter started."""
    wraps_at_joules: float | None = None
    """Value at which the counter starts again from 0; None if it never does."""


CounterReader = Callable[[], Mapping[str, CounterReading]]
"""Call it to read all counters, by their names; raises NotReported if they cannot be read."""


class EnergyMeter:
    """Measures energy from `start` to `stop`.

    Args:
        device: reads the counters of the device that trains.
        host: reads the counters of the host; None if the host is the device that trains.
    """

    def __init__(self, device: CounterReader, host: CounterReader | None) -> None:
        """Read nothing yet: call `start`."""
        self._device = _EnergySpan(device)
        self._host = None if host is None else _EnergySpan(host)

    def start(self) -> None:
        """Begin to measure."""
        if self._host is not None:
            self._host.start()
        self._device.start()

    def stop(self) -> Energy:
        """Stop measuring."""
        device = self._device.stop()
        return Energy(device=device, host=None if self._host is None else self._host.stop())


class _EnergySpan:
    """The energy between `start` and `stop`; None, with the reason, if a reading fails."""

    def __init__(self, read: CounterReader) -> None:
        self._read = read
        self._before: Mapping[str, CounterReading] | NotReported = NotReported(
            "the measurement was not started"
        )
        self._started = 0.0

    def start(self) -> None:
        try:
            self._before = self._read()
        except NotReported as reason:
            self._before = reason
        self._started = time.monotonic()

    def stop(self) -> Joules:
        seconds = time.monotonic() - self._started
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
    """The energy that all counters together counted between two readings.

    Args:
        before: reading of each counter at the start.
        after: reading of each counter at the end.
        seconds: time between the readings.

    Raises:
        NotReported: the readings do not give the energy with certainty.
    """
    if seconds < SHORTEST_SECONDS:
        raise NotReported(
            f"the run took {seconds:.2g} s: counters are too coarse below {SHORTEST_SECONDS:g} s"
        )
    if before.keys() != after.keys():
        raise NotReported("the machine had other counters after the run than before it")
    total = 0.0
    for name, start in before.items():
        used, wraps_at = after[name].joules - start.joules, start.wraps_at_joules
        if used < 0 and wraps_at is not None:
            used += wraps_at
        if used < 0:
            raise NotReported(f"{name} ran backwards")
        # One more wrap would still be a possible power: then the readings do not tell which.
        if wraps_at is not None and used + wraps_at <= MOST_WATTS * seconds:
            raise NotReported(f"{name} may have wrapped more than once in {seconds:.0f} s")
        total += used
    if total == 0:
        raise NotReported(f"stood still: {', '.join(before)}")
    return total


def gpu_counters(gpus: Sequence[Gpu]) -> CounterReader:
    """A reader of NVML's counters of whole boards: GPU, memory and power supply."""

    def read() -> dict[str, CounterReading]:
        return {
            f"NVML's total energy of GPU {index}": CounterReading(
                gpu.ask("TotalEnergyConsumption") / 1e3
            )
            for index, gpu in enumerate(gpus)
        }

    return read


def cpu_counters(powercap: Path = POWERCAP) -> CounterReader:
    """A reader of RAPL's counters of processor packages and, if there are any, of their memory.

    The other zones are parts of a package (core, uncore) or contain it (psys). AMD's processors use
    the same names.
    Source: the kernel's documentation, power/powercap/powercap.rst.

    Args:
        powercap: the kernel's folder of RAPL zones.
    """

    def read() -> dict[str, CounterReading]:
        readings = {}
        try:
            for zone in sorted(powercap.glob("intel-rapl:*")):
                name = (zone / "name").read_text().strip()
                if name.startswith("package") or name == "dram":
                    readings[f"RAPL's {name} ({zone.name})"] = CounterReading(
                        _microjoules(zone / "energy_uj") / 1e6,
                        _microjoules(zone / "max_energy_range_uj") / 1e6,
                    )
        except PermissionError:
            raise NotReported("only root can read RAPL's counters: see docs/energy.md") from None
        except (OSError, ValueError) as error:
            raise NotReported(f"RAPL's counters cannot be read: {type(error).__name__}") from error
        if not readings:
            raise NotReported("no RAPL counters: this processor or virtual machine has none")
        return readings

    return read


def _microjoules(file: Path) -> int:
    """The number in a file of the kernel.

    Raises:
        OSError: it cannot be read.
        ValueError: there is none.
    """
    number = whole_number(file.read_text().strip())
    if number is None:
        raise ValueError
    return number


def no_counters(reason: str) -> CounterReader:
    """A reader that always fails: the energy is None, for this reason."""

    def read() -> Mapping[str, CounterReading]:
        raise NotReported(reason)

    return read
