"""Stands in for NVIDIA's library on machines without such a GPU: answers as it documents them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

GIB = 2**30
UUID = "0b1c2d3e"


class NVMLError(Exception):
    """As the binding's own."""


class NVMLLibraryMismatchError(Exception):
    """As the binding's: none of its NVMLErrors."""


@dataclass
class NvmlDouble:
    """A module `pynvml` with one GPU; what is not in `answers` is not supported."""

    answers: dict[str, Any] = field(default_factory=dict)
    """By function, without "nvmlDeviceGet": a value; by what is asked about (dict); one a call
    (list). An exception among them is raised."""
    NVMLError: type[Exception] = NVMLError

    def nvmlInit(self) -> None:  # noqa: N802
        """Nothing to do."""

    def nvmlDeviceGetHandleByUUID(self, uuid: str) -> str:  # noqa: N802
        if uuid != f"GPU-{UUID}":
            raise NVMLError("Not Found")
        return "handle"

    def __getattr__(self, name: str) -> Any:
        question = name.removeprefix("nvmlDeviceGet")
        if question == name:
            raise AttributeError(name)

        def answer(handle: str, *about: Any) -> Any:
            assert handle == "handle"
            found = self.answers.get(question, NVMLError("Not Supported"))
            if isinstance(found, list):
                found = found.pop(0)
            if isinstance(found, dict):
                found = found[about]
            if isinstance(found, Exception):
                raise found
            return found

        return answer


def processes(*memory: tuple[int, int | None]) -> tuple[SimpleNamespace, ...]:
    """A process list: numbers and bytes."""
    return tuple(SimpleNamespace(pid=pid, usedGpuMemory=held) for pid, held in memory)


def violations(power: int = 0, heat: int = 0, board: int = 0) -> dict[tuple[int], SimpleNamespace]:
    """Violation times in nanoseconds, by policy."""
    times = {0: power, 1: heat, 3: board}
    return {
        (policy,): SimpleNamespace(referenceTime=1, violationTime=time)
        for policy, time in times.items()
    }


def healthy(others: Sequence[tuple[int, int | None]] = ()) -> dict[str, Any]:
    """What an H100 of a current driver answers while it trains."""
    return {
        "MigMode": (0, 0),
        "TotalEnergyConsumption": 1_000_000,
        "ClockInfo": {(1,): 1980, (2,): 2619},
        "TemperatureV": 41,
        "PowerUsage": 312_500,
        "UtilizationRates": SimpleNamespace(gpu=87, memory=12),
        "MemoryInfo": SimpleNamespace(total=80 * GIB, used=3 * GIB, free=77 * GIB),
        "CurrentClocksEventReasons": 0,
        "ComputeRunningProcesses": processes((os.getpid(), 2 * GIB), *others),
        "ViolationStatus": violations(),
    }
