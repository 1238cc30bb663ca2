"""A benchmark's memory of itself, so that another process can go on where one was lost.

A folder with one manifest, replaced as a whole, and each rank's checkpoint files
(`mnist_cnn.engine.checkpoint`). A checkpoint exists from the moment
the manifest names its files' digests.
Which runs are over is not written here: their records are in the results folder, or they are not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import filelock
from pydantic import JsonValue, ValidationError

from bench.measure.run_state import BenchmarkState, RunState
from bench.records import store
from bench.records.disk import sync_folder
from bench.records.schema import Environment, ProtocolValues, RunRecord, Setup, Status
from bench.text import printable
from mnist_cnn.errors import UsageError

CHECKPOINTS_DIR = ".checkpoints"
"""Among the results, and hidden: whoever reads those must not look for records in it."""
_MANIFEST = "benchmark.json"
_LOCK = ".lock"
_OURS = re.compile(
    rf"{re.escape(_MANIFEST)}|\.{re.escape(_MANIFEST)}\.tmp|{re.escape(_LOCK)}"
    r"|(seed-\d+-epoch-\d+-rank-)\d+\.pt|\.seed-\d+-epoch-\d+-rank-\d+\.pt\.\d+\.tmp"
)
"""What this module and the checkpoints write: --checkpoint-dir may hold others' files."""
_LOCK_SECONDS = 15.0
"""Ranks that lost their supervisor or one of them save their records before they end."""


def run_identity(
    recipe: Mapping[str, JsonValue],
    protocol: ProtocolValues,
    seed: int,
    setup: Setup,
    environment: Environment,
    dataset: Mapping[str, str],
    label: str | None,
) -> dict[str, JsonValue]:
    """What has to be the same for a run to go on as if nothing had happened, by name."""
    how = setup.model_dump(
        mode="json",
        include={
            "device",
            "device_name",
            "processes",
            "threads",
            "precision",
            "kernels",
            "captured",
            "memory_format",
        },
    )
    named: dict[str, JsonValue] = {
        **{f"recipe.{name}": value for name, value in recipe.items()},
        **{f"protocol.{name}": value for name, value in protocol.model_dump(mode="json").items()},
        "seed": seed,
        **how,
        "commit": environment.commit,
        "dirty": environment.dirty,
        "torch": environment.torch,
        "accelerate": environment.accelerate,
        **{f"data.{name}": value for name, value in dataset.items()},
        "label": label,
    }
    # As it will be read: a tuple comes back as a list.
    read: dict[str, JsonValue] = json.loads(json.dumps(named))
    return read


class JournalFolder:
    """Where a benchmark is remembered; one process at a time has it.

    Raises:
        UsageError: from the constructor, where another has it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        self._lock = filelock.FileLock(path / _LOCK, timeout=_LOCK_SECONDS)
        try:
            self._lock.acquire()
        except filelock.Timeout:
            raise UsageError(
                f"another benchmark keeps its checkpoints in {printable(str(path))}: wait for it, "
                "or name another folder with --checkpoint-dir"
            ) from None

    def release(self) -> None:
        """Let others have it."""
        self._lock.release()

    def manifest(self) -> BenchmarkState | None:
        """What is remembered; None where nothing is.

        Raises:
            UsageError: it cannot be read or is not what was written.
        """
        path = self.path / _MANIFEST
        try:
            digest, _, text = path.read_bytes().partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"cannot read {printable(str(path))}: {error.strerror}") from error
        try:
            if hashlib.sha256(text).hexdigest().encode() != digest:
                raise ValueError("its checksum is another")
            return BenchmarkState.model_validate_json(text)
        except (ValueError, ValidationError) as error:
            raise UsageError(
                f"{printable(str(path))} is damaged: delete its folder and run without --resume"
            ) from error

    def write(self, manifest: BenchmarkState) -> None:
        """Remember this instead; when it returns it is on the disk.

        Raises:
            OSError: it is not; what was remembered before still is.
        """
        text = json.dumps(manifest.model_dump(mode="json"), indent=1).encode()
        temporary = self.path / f".{_MANIFEST}.tmp"
        with temporary.open("wb") as file:
            file.write(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self.path / _MANIFEST)
        sync_folder(self.path)

    def tidy(self, manifest: BenchmarkState) -> None:
        """Remove what no checkpoint of the manifest needs: drafts, and files of other runs."""
        kept = {
            f"seed-{point.seed}-epoch-{point.epoch}-rank-"
            for point in (manifest.current, manifest.previous)
            if point is not None and point.epoch
        }
        for path, checkpoint in self._ours():
            old = checkpoint is not None and checkpoint not in kept
            if old or path.name.endswith(".tmp"):
                path.unlink(missing_ok=True)

    def remove(self) -> None:
        """Forget everything, and the folder where nothing else is in it."""
        (self.path / _MANIFEST).unlink(missing_ok=True)
        for path, _ in self._ours():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _ours(self) -> list[tuple[Path, str | None]]:
        """The files that a benchmark wrote; with what those of one checkpoint begin with."""
        named = ((path, _OURS.fullmatch(path.name)) for path in self.path.iterdir())
        return [(path, match[1]) for path, match in named if match]


def identity_difference(kept: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> str | None:
    """The first thing that is not the same, in words; None where all is."""
    for name in dict.fromkeys((*kept, *now)):
        if kept.get(name) != now.get(name):
            old, new = (printable(json.dumps(side.get(name)))[:60] for side in (kept, now))
            return f"its {printable(name)} is {old}, here it is {new}"
    return None


def finished_records(results_dir: Path, benchmark_id: str) -> list[RunRecord]:
    """The records of a benchmark's runs that need not be made again, in order."""
    found = [
        record
        for _, record in (store.read_records([results_dir]).records if results_dir.exists() else [])
        if record.benchmark_id == benchmark_id
        and record.status in (Status.COMPLETED, Status.DIVERGED)
    ]
    return sorted(found, key=lambda record: record.run_index)


class Journal:
    """What `bench.measure.runner` tells of a benchmark while it is measured.

    Args:
        folder: where it is written; None on a rank that does not write.
        manifest: what is remembered so far.
        earlier: the runs that are over.
        lost: the run to go on with, if one was lost.
    """

    def __init__(
        self,
        folder: JournalFolder | None,
        manifest: BenchmarkState,
        earlier: Sequence[RunRecord],
        lost: RunState | None,
    ) -> None:
        self.earlier = earlier
        self._folder = folder
        self._manifest = manifest
        self._lost = lost

    @property
    def benchmark_id(self) -> str:
        """The benchmark's, whichever process measures it."""
        return self._manifest.benchmark_id

    def begin(self, index: int, seed: int) -> RunState:
        """A run begins, or goes on from what is returned."""
        if self._lost is not None and self._lost.run_index == index:
            run = self._lost.model_copy(update={"resumed": self._lost.resumed + 1})
        else:
            run = RunState(run_index=index, seed=seed)
            self._manifest = self._manifest.model_copy(update={"previous": None})
        self._lost = None
        self._manifest = self._manifest.model_copy(update={"current": run})
        if self._folder is not None:
            self._folder.write(self._manifest)
            self._folder.tidy(self._manifest)
        return run

    def keep(self, unfinished: RunState) -> None:
        """A run has come so far."""
        before = self._manifest.current
        has_checkpoint = before is not None and before.epoch > 0
        update = {"current": unfinished, "previous": before if has_checkpoint else None}
        self._manifest = self._manifest.model_copy(update=update)
        if self._folder is not None:
            self._folder.write(self._manifest)

    def finish(self) -> None:
        """All runs are over, and their records kept."""
        if self._folder is not None:
            self._folder.remove()

    def close(self) -> None:
        """Let others have the folder."""
        if self._folder is not None:
            self._folder.release()
