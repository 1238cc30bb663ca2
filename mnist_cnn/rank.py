"""Which of the launched processes this is. The only reader of the launcher's rank variables."""

from __future__ import annotations

import os
from dataclasses import dataclass

LOOPBACK = "127.0.0.1"
"""Address at which the ranks of one machine meet: no other machine can reach it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rank:
    """One process among those that train together; the defaults are those of a process alone."""

    index: int = 0
    """Index of this process over all machines, from 0."""
    local_index: int = 0
    """Index of this process on its machine, from 0."""
    world_size: int = 1
    """Number of processes over all machines."""
    local_world_size: int = 1
    """Number of processes on this machine."""

    @classmethod
    def from_environment(cls) -> Rank:
        """This process, as torchrun, `accelerate launch` or `mnist-bench` describes it.

        A variable that is missing or empty has the value of a process alone. Without
        LOCAL_WORLD_SIZE, all processes are on this machine.

        Raises:
            ValueError: a variable is not a whole number.
        """
        world_size = int(os.environ.get("WORLD_SIZE") or 1)
        return cls(
            index=int(os.environ.get("RANK") or 0),
            local_index=int(os.environ.get("LOCAL_RANK") or 0),
            world_size=world_size,
            local_world_size=int(os.environ.get("LOCAL_WORLD_SIZE") or world_size),
        )

    def variables(self) -> dict[str, str]:
        """The environment variables from which a process reads this rank."""
        return {
            "RANK": str(self.index),
            "LOCAL_RANK": str(self.local_index),
            "WORLD_SIZE": str(self.world_size),
            "LOCAL_WORLD_SIZE": str(self.local_world_size),
        }

    @property
    def is_main(self) -> bool:
        """Whether this process prints and writes for all."""
        return self.index == 0

    @property
    def is_on_main_machine(self) -> bool:
        """Whether this process is on the machine of rank 0."""
        return self.index == self.local_index

    @property
    def is_first_on_machine(self) -> bool:
        """Whether the supervisor of this machine passes on this process's exit status."""
        return self.local_index == 0


def is_launched() -> bool:
    """Whether a launcher started this process as a rank."""
    return "WORLD_SIZE" in os.environ
