"""The runs that one process makes, where several processes make a benchmark at the same time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from mnist_cnn.errors import UsageError

VARIABLE = "MNIST_BENCH_SHARE"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class SeedShare:
    """One process's part of a benchmark."""

    index: int
    """Which of the processes this is, from 0."""
    count: int
    """Number of processes."""
    benchmark_id: str
    """Id of the benchmark that the processes make together."""
    threads: int
    """Threads of each process, unless the command names another number."""
    visible: str | None
    """CUDA_VISIBLE_DEVICES as the user set it; null where it is not set."""
    records: str
    """Folder where the process leaves its records for its parent; empty without a parent."""
    planned_at: str = ""
    """When the benchmark was planned (ISO 8601, UTC): one plan for all processes; empty for now."""

    @classmethod
    def from_environment(cls) -> SeedShare | None:
        """The share of this process; None where it makes all runs.

        Raises:
            UsageError: the variable holds something else.
        """
        encoded = os.environ.get(VARIABLE)
        if encoded is None:
            return None
        try:
            return cls(**json.loads(encoded))
        except (TypeError, ValueError) as error:
            raise UsageError(f"{VARIABLE} is not what --parallel-seeds sets: unset it") from error

    def makes(self, run_index: int) -> bool:
        """Whether this process makes the run of this index, from 1: the processes take turns."""
        return (run_index - 1) % self.count == self.index

    def variables(self, gpus: int) -> dict[str, str]:
        """Environment variables of the process.

        Args:
            gpus: number of visible CUDA devices; each process gets one, and processes share them
                where there are more processes than devices.
        """
        variables = {VARIABLE: json.dumps(asdict(self))}
        if gpus:
            devices = [str(number) for number in range(gpus)]
            if self.visible is not None:
                devices = [name.strip() for name in self.visible.split(",")][:gpus]
            variables[_VISIBLE] = devices[self.index % len(devices)]
        return variables

    def restore_user_variables(self, variables: Mapping[str, str]) -> dict[str, str]:
        """These variables, but CUDA_VISIBLE_DEVICES as the user set it, or absent as then."""
        others = {name: text for name, text in variables.items() if name != _VISIBLE}
        return others if self.visible is None else others | {_VISIBLE: self.visible}


def visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES; None where it is not set."""
    return os.environ.get(_VISIBLE)
