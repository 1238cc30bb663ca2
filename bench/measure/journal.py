"""The state of a benchmark on disk, so that another process can resume it.

A folder with one manifest, replaced as a whole, and each rank's checkpoint files
(`mnist_cnn.engine.checkpoint`). A checkpoint exists from the moment the manifest names the digests
of its files. The manifest does not say which runs are complete: their records are in the results
folder, or they are not.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pydantic import JsonValue

from bench.measure.run_state import BenchmarkState, RunState
from bench.records import store
from bench.records.machine_key import MachineKey
from bench.records.model import parse_document
from bench.records.schema import Environment, ProtocolValues, RunRecord, Setup, Status
from bench.text import printable
from mnist_cnn.disk import advice_for, read_file, replace_file
from mnist_cnn.errors import UnwrittenCheckpointError, UsageError, reason_of
from mnist_cnn.escaping import tell
from mnist_cnn.folder_lock import locked

_MANIFEST = "benchmark.json"
_LOCK = ".lock"
_OURS = re.compile(
    rf"{re.escape(_MANIFEST)}|{re.escape(_LOCK)}(?:\.holder)?|(seed-\d+-epoch-\d+-rank-)\d+\.pt"
    rf"|\.(?:{re.escape(_MANIFEST)}|seed-\d+-epoch-\d+-rank-\d+\.pt)\.[0-9a-f]+\.tmp"
)
"""Names of the files that this module and the checkpoints write: the folder may hold others."""
_LARGEST_BYTES = 64 << 20
"""Most bytes of the manifest."""
LOCK_SECONDS = 15.0
"""Seconds to wait for the lock: ranks whose supervisor died save their records before they end."""
_SETUP_IDENTITY = {
    "device",
    "device_name",
    "processes",
    "threads",
    "precision",
    "kernels",
    "captured",
    "memory_format",
}
"""Fields of the set-up that must be the same."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkIdentity:
    """What must be the same for a benchmark to resume as if it had not been interrupted."""

    recipe: Mapping[str, JsonValue]
    protocol: ProtocolValues
    seed: int
    """Seed of the first run."""
    setup: Setup
    environment: Environment
    dataset: Mapping[str, str]
    """SHA-256 of each data file."""
    label: str | None

    def values(self) -> dict[str, JsonValue]:
        """Each fact by name, as JSON reads it back."""
        protocol = self.protocol.model_dump(mode="json")
        named: dict[str, JsonValue] = {
            **{f"recipe.{name}": value for name, value in self.recipe.items()},
            **{f"protocol.{name}": value for name, value in protocol.items()},
            "seed": self.seed,
            **self.setup.model_dump(mode="json", include=_SETUP_IDENTITY),
            "machine": MachineKey.of(self.environment).digest,
            "commit": self.environment.commit,
            "dirty": self.environment.dirty,
            "torch": self.environment.torch,
            "accelerate": self.environment.accelerate,
            **{f"data.{name}": value for name, value in self.dataset.items()},
            "label": self.label,
        }
        # JSON reads a tuple back as a list.
        read: dict[str, JsonValue] = json.loads(json.dumps(named))
        return read


class JournalFolder:
    """The folder of a benchmark's state, locked by one process at a time.

    Raises:
        UsageError: from the constructor, when another process holds the lock.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        where = printable(str(path))

        self._lock = contextlib.ExitStack()
        try:
            self._lock.enter_context(
                locked(
                    path,
                    lambda line: tell(f"mnist-bench: {line}"),
                    purpose=f"keeps its checkpoints in {where}",
                    longest_seconds=LOCK_SECONDS,
                    stopped_seconds=LOCK_SECONDS * 2 / 3,
                )
            )
        except UsageError as error:
            raise UsageError(
                f"another benchmark keeps its checkpoints in {where}: {error}; or name another "
                "folder with --checkpoint-dir"
            ) from error

    def release(self) -> None:
        """Unlock the folder."""
        self._lock.close()

    def manifest(self) -> BenchmarkState | None:
        """The stored state; None where nothing is stored.

        Raises:
            UsageError: the file cannot be read or was damaged.
        """
        path = self.path / _MANIFEST
        try:
            digest, _, text = read_file(path, _LARGEST_BYTES).partition(b"\n")
        except FileNotFoundError:
            return None
        except OSError as error:
            raise UsageError(f"cannot read {printable(str(path))}: {reason_of(error)}") from error
        try:
            if hashlib.sha256(text).hexdigest().encode() != digest:
                raise ValueError("its checksum is another")
            return parse_document(BenchmarkState, text)
        except ValueError as error:
            raise UsageError(
                f"{printable(str(path))} is damaged: delete its folder and run without --resume"
            ) from error

    def write(self, manifest: BenchmarkState) -> None:
        """Replace the stored state; when this returns, it is on the disk.

        Raises:
            UnwrittenCheckpointError: it could not be written; the state before is still stored.
        """
        text = json.dumps(manifest.model_dump(mode="json"), indent=1).encode()
        content = hashlib.sha256(text).hexdigest().encode() + b"\n" + text
        try:
            replace_file(self.path / _MANIFEST, content)
        except OSError as error:
            raise UnwrittenCheckpointError(
                f"{_MANIFEST} of the checkpoints cannot be written ({reason_of(error)}): "
                f"{advice_for(error)}"
            ) from error

    def tidy(self, manifest: BenchmarkState) -> None:
        """Remove the files that no checkpoint of the manifest needs."""
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
        """Remove the state, and the folder if nothing else is in it."""
        (self.path / _MANIFEST).unlink(missing_ok=True)
        for path, _ in self._ours():
            path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _ours(self) -> list[tuple[Path, str | None]]:
        """The files that a benchmark wrote, each with its checkpoint's prefix or None."""
        named = ((path, _OURS.fullmatch(path.name)) for path in self.path.iterdir())
        return [(path, match[1]) for path, match in named if match]


def identity_difference(kept: Mapping[str, JsonValue], now: Mapping[str, JsonValue]) -> str | None:
    """The first fact that differs, in words; None where all are the same."""
    for name in dict.fromkeys((*kept, *now)):
        if kept.get(name) != now.get(name):
            old, new = (printable(json.dumps(side.get(name)))[:60] for side in (kept, now))
            return f"its {printable(name)} is {old}, here it is {new}"
    return None


def finished_records(results_dir: Path, benchmark_id: str) -> list[RunRecord]:
    """The records of a benchmark's complete runs, in order."""
    found = [
        record
        for _, record in (store.read_records([results_dir]).records if results_dir.exists() else [])
        if record.benchmark_id == benchmark_id
        and record.status in (Status.COMPLETED, Status.DIVERGED)
    ]
    return sorted(found, key=lambda record: record.run_index)


class Journal:
    """Stores the state of a benchmark while it is measured; see `bench.measure.instruments`.

    Args:
        folder: where the state is written; None on a rank that does not write.
        manifest: the state so far.
        earlier: records of the runs that are over.
        lost: state of the run to resume; None for none.
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
        """Id of the benchmark, the same in every process that measures it."""
        return self._manifest.benchmark_id

    def begin(self, index: int, seed: int) -> RunState:
        """Begin or resume a run, and return the state to start from."""
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

    def keep(self, state: RunState) -> None:
        """Store the state of the run at a checkpoint."""
        before = self._manifest.current
        has_checkpoint = before is not None and before.epoch > 0
        update = {"current": state, "previous": before if has_checkpoint else None}
        self._manifest = self._manifest.model_copy(update=update)
        if self._folder is not None:
            self._folder.write(self._manifest)

    def finish(self) -> None:
        """Forget the benchmark: all runs are over and their records are saved."""
        if self._folder is not None:
            self._folder.remove()

    def close(self) -> None:
        """Unlock the folder."""
        if self._folder is not None:
            self._folder.release()
