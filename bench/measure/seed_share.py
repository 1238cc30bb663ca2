"""Which runs of a benchmark a process makes, where several processes make them at a time."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass

VARIABLE = "MNIST_BENCH_SHARE"
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True, slots=True)
class SeedShare:
    """One process's part of a benchmark."""

    index: int
    """Which of the processes, from 0."""
    count: int
    benchmark_id: str
    """Of all of them: together they are one benchmark."""
    threads: int
    """Of each process, unless the command says otherwise."""
    visible: str | None
    """CUDA_VISIBLE_DEVICES as the user has it, before each process was given its own."""
    records: str
    """Folder where the runs' records are left for who started this; empty: nobody waits."""

    def makes(self, run_index: int) -> bool:
        """Whether it is this process that makes a run, counted from 1: they take turns."""
        return (run_index - 1) % self.count == self.index

    def variables(self, gpus: int) -> dict[str, str]:
        """What the process is told by its environment.

        Args:
            gpus: CUDA devices that the user lets be seen; each process gets one of them, and those
                that there are more processes than GPUs share theirs.
        """
        told = {VARIABLE: json.dumps(asdict(self))}
        if gpus:
            seen = [str(number) for number in range(gpus)]
            if self.visible is not None:
                seen = [name.strip() for name in self.visible.split(",")][:gpus]
            told[_VISIBLE] = seen[self.index % len(seen)]
        return told

    def as_the_user_set_it(self, variables: Mapping[str, str]) -> dict[str, str]:
        """Environment variables as a record holds them: a GPU's number is not the user's word."""
        others = {name: text for name, text in variables.items() if name != _VISIBLE}
        return others if self.visible is None else others | {_VISIBLE: self.visible}


def mine() -> SeedShare | None:
    """This process's part; None where it makes all runs."""
    told = os.environ.get(VARIABLE)
    return None if told is None else SeedShare(**json.loads(told))


def visible_devices() -> str | None:
    """CUDA_VISIBLE_DEVICES, or None where nobody has set it."""
    return os.environ.get(_VISIBLE)
