"""A training's state between two epochs, in a file a rank: all that the epochs after it depend on.

Each file holds numbers alone (torch.load with weights_only) and is written whole or not at all. It
counts once somebody has kept its digest: `bench.measure.journal` does, of all ranks' files at once.
"""

from __future__ import annotations

import hashlib
import io
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from accelerate import Accelerator
from torch import Tensor

State = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Point:
    """A checkpoint: where in which run, and what its files are."""

    seed: int
    """The run's."""
    epoch: int
    """The last one trained, from 1."""
    digests: tuple[str, ...]
    """SHA-256 of each rank's file, in hexadecimal."""


class Checkpoints:
    """This rank's files of a benchmark.

    Args:
        folder: where they lie; it is there.
        every: epochs between two.
        accelerator: the ranks, and the device whose generator is kept.
        start: what a run of its seed goes on from.
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
        """Whether one is due after an epoch; not after the last, when the run's record is."""
        return epoch % self._every == 0 and epoch < epochs

    def start(self, seed: int) -> Point | None:
        """What a run goes on from; None where it begins at its beginning."""
        return self._start if self._start is not None and self._start.seed == seed else None

    def write(self, seed: int, epoch: int, state: State) -> tuple[str, ...]:
        """Keep a state and the generators'; to be called by every rank.

        Returns:
            The SHA-256 of each rank's file: all are on the disk by then.

        Raises:
            OSError: this rank's could not be written; earlier ones are as they were.
        """
        # By now whoever keeps the digests has those of the last two.
        for old in self._written[:-2]:
            old.unlink(missing_ok=True)
        self._written = self._written[-2:]
        buffer = io.BytesIO()
        torch.save({**state, "generators": self._generators()}, buffer)
        path = self._path(seed, epoch)
        _write(path, buffer.getvalue())
        self._written.append(path)
        return self._over_ranks(hashlib.sha256(buffer.getvalue()).digest())

    def read(self, point: Point) -> State:
        """The state kept there, on the CPU; the generators are put back as they were by then.

        Raises:
            OSError: this rank's file cannot be read.
            ValueError: it is not the one that was written.
        """
        path = self._path(point.seed, point.epoch)
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest() != point.digests[self._accelerator.process_index]:
            raise ValueError(f"{path.name} is not what was written")
        state = cast(State, torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
        self._written.append(path)
        self._restore_generators(state["generators"])
        return state

    def intact(self, point: Point) -> bool:
        """Whether every rank has its file as it was written; to be asked of every rank."""
        try:
            digest = hashlib.sha256(self._path(point.seed, point.epoch).read_bytes()).digest()
        except OSError:
            digest = bytes(32)
        return self._over_ranks(digest) == point.digests

    def _path(self, seed: int, epoch: int) -> Path:
        rank = self._accelerator.process_index
        return self._folder / f"seed-{seed}-epoch-{epoch}-rank-{rank}.pt"

    def _over_ranks(self, digest: bytes) -> tuple[str, ...]:
        if self._accelerator.num_processes == 1:
            return (digest.hex(),)
        mine = torch.tensor([list(digest)], dtype=torch.uint8, device=self._accelerator.device)
        gathered = cast(Tensor, self._accelerator.gather(mine))
        return tuple(bytes(row).hex() for row in gathered.tolist())

    def _generators(self) -> dict[str, Any]:
        """The global ones, which dropout and the loader's transforms draw from."""
        device = self._accelerator.device.type
        own = None if device == "cpu" else torch.get_device_module(device).get_rng_state()
        return {"python": random.getstate(), "torch": torch.get_rng_state(), "device": own}

    def _restore_generators(self, kept: dict[str, Any]) -> None:
        random.setstate(kept["python"])
        torch.set_rng_state(kept["torch"])
        if kept["device"] is not None:
            torch.get_device_module(self._accelerator.device.type).set_rng_state(kept["device"])


def _write(path: Path, content: bytes) -> None:
    """Replace a file once the new one is complete on the disk."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
