"""Saves a training's state between two epochs, one file per rank, to continue from it later.

Each file contains numbers only (`mnist_cnn.engine.saved_state`) and is written completely or not at
all. A checkpoint is valid once its digests are stored: `bench.measure.journal` stores those of all
ranks' files at once.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

from mnist_cnn.disk import advice_for, read_file, replace_file
from mnist_cnn.engine import saved_state
from mnist_cnn.errors import DamagedCheckpointError, UnwrittenCheckpointError, reason_of

State = Mapping[str, Any]
_LARGEST_BYTES = 32 << 20
"""Most bytes of a checkpoint; all recipes have the same network, and less than 2 MB."""


@dataclass(frozen=True, slots=True)
class Point:
    """One checkpoint: its run, its epoch and the digests of its files."""

    seed: int
    """Seed of the run."""
    epoch: int
    """Number of the last epoch trained, from 1."""
    digests: tuple[str, ...]
    """SHA-256 of each rank's file, in hexadecimal."""


class Checkpoints:
    """This rank's checkpoint files of a benchmark.

    Args:
        folder: existing folder of the files.
        every: number of epochs between two checkpoints.
        accelerator: the ranks, and the device whose random generator is saved.
        start: checkpoint from which the run of its seed continues; None for no run.
    """

    def __init__(
        self, folder: Path, every: int, accelerator: Accelerator, start: Point | None = None
    ) -> None:
        self._folder = folder
        self._every = every
        self._accelerator = accelerator
        self._start = start
        self._written: list[Path] = []

    def due(self, epoch: int, epochs: int) -> bool:
        """Whether to save one after `epoch`; not after the last, when the run's record is saved."""
        return epoch % self._every == 0 and epoch < epochs

    def start(self, seed: int) -> Point | None:
        """The checkpoint from which the run of `seed` continues; None where it starts anew."""
        return self._start if self._start is not None and self._start.seed == seed else None

    def write(self, seed: int, epoch: int, state: State) -> tuple[str, ...]:
        """Save a state and that of the random generators; every rank calls this.

        Returns:
            The SHA-256 of each rank's file; all are on the disk by then.

        Raises:
            UnwrittenCheckpointError: this rank's file could not be written; earlier ones are
                unchanged.
        """
        # By now the digests of the last two checkpoints are stored.
        for old in self._written[:-2]:
            old.unlink(missing_ok=True)
        self._written = self._written[-2:]
        content = saved_state.pack({**state, "generators": self._generators()})
        path = self._path(seed, epoch)
        try:
            replace_file(path, content)
        except OSError as error:
            raise UnwrittenCheckpointError(
                f"the checkpoint {path.name} cannot be written ({reason_of(error)}): "
                f"{advice_for(error)}"
            ) from error
        self._written.append(path)
        return self._gather_digests(hashlib.sha256(content).digest())

    def restore(self, point: Point, apply: Callable[[State], None]) -> None:
        """Load a state to the CPU, apply it, and restore the random generators.

        Args:
            point: the checkpoint.
            apply: restores all but the generators from the state.

        Raises:
            DamagedCheckpointError: this rank's file cannot be read, is not the one that was
                written or holds another state than this training's.
        """
        path = self._path(point.seed, point.epoch)
        try:
            data = read_file(path, _LARGEST_BYTES)
            if hashlib.sha256(data).hexdigest() != point.digests[self._accelerator.process_index]:
                raise ValueError("it is not what was written")
            state = saved_state.unpack(data)
            apply(state)
            self._restore_generators(state["generators"])
        except Exception as error:  # whoever wrote the digest may have written anything
            raise DamagedCheckpointError(
                f"cannot continue from {path.name} ({type(error).__name__}: {error}): delete its "
                "folder and run without --resume"
            ) from error
        self._written.append(path)

    def intact(self, point: Point) -> bool:
        """Whether every rank has its file as it was written; every rank calls this."""
        try:
            content = read_file(self._path(point.seed, point.epoch), _LARGEST_BYTES)
            digest = hashlib.sha256(content).digest()
        except OSError:
            digest = bytes(32)
        return self._gather_digests(digest) == point.digests

    def _path(self, seed: int, epoch: int) -> Path:
        rank = self._accelerator.process_index
        return self._folder / f"seed-{seed}-epoch-{epoch}-rank-{rank}.pt"

    def _gather_digests(self, digest: bytes) -> tuple[str, ...]:
        if self._accelerator.num_processes == 1:
            return (digest.hex(),)
        rank_digest = torch.tensor(
            [list(digest)], dtype=torch.uint8, device=self._accelerator.device
        )
        gathered = cast(Tensor, self._accelerator.gather(rank_digest))
        return tuple(bytes(row).hex() for row in gathered.tolist())

    def _generators(self) -> dict[str, Any]:
        """States of the global generators, from which dropout and the loader's transforms draw."""
        device = self._accelerator.device.type
        device_state = None if device == "cpu" else torch.get_device_module(device).get_rng_state()
        return {"python": random.getstate(), "torch": torch.get_rng_state(), "device": device_state}

    def _restore_generators(self, states: dict[str, Any]) -> None:
        random.setstate(states["python"])
        torch.set_rng_state(states["torch"])
        if states["device"] is not None:
            torch.get_device_module(self._accelerator.device.type).set_rng_state(states["device"])
