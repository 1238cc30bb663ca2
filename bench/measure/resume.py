"""`mnist-bench run --checkpoint-every` and `--resume`: the options, and what is found there."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.text import printable
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import Rank

if TYPE_CHECKING:
    from accelerate import Accelerator
    from pydantic import JsonValue

    from bench.measure.journal import Journal, JournalFolder
    from bench.measure.run_state import BenchmarkState, RunState
    from mnist_cnn.engine.checkpoint import Checkpoints


@dataclass(frozen=True, slots=True)
class CheckpointRequest:
    """What the options ask for."""

    folder: Path
    results_dir: Path
    every: int | None
    """Epochs between two checkpoints; None: as it was."""
    resume: bool
    fall_back: bool
    """Whether the checkpoint before a damaged one will do."""


def count_restarts() -> int:
    """How often the launcher has started all ranks anew (torchrun's and Accelerate's elastic one).

    Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
    """
    told = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(told) if told.isdecimal() else 0


def open_journal(
    asked: CheckpointRequest, identity: Mapping[str, JsonValue], accelerator: Accelerator
) -> tuple[Journal, Checkpoints]:
    """The benchmark to go on with, or the beginnings of one; to be called by every rank.

    Raises:
        UsageError: there is none, it is another or damaged, or one is there that would be lost;
            on every rank alike.
    """
    from bench.measure.journal import Journal
    from bench.measure.run_state import BenchmarkState
    from bench.records.schema import RunRecord
    from mnist_cnn.distributed import broadcast_from_main

    folder: JournalFolder | None = None
    told = ""
    if Rank.from_environment().is_main:
        try:
            folder, told = _find_benchmark(asked, identity)
        except UsageError as error:
            told = json.dumps({"refusal": str(error)})
    try:
        values = json.loads(broadcast_from_main(told, accelerator))
        if "refusal" in values:
            raise UsageError(values["refusal"])
        manifest = BenchmarkState.model_validate(values["manifest"])
        asked.folder.mkdir(parents=True, exist_ok=True)  # on another machine it may not be there
        manifest, checkpoints = _find_intact_checkpoint(asked, manifest, accelerator)
        earlier = [RunRecord.model_validate(record) for record in values["earlier"]]
        return Journal(folder, manifest, earlier, manifest.current), checkpoints
    except UsageError:
        if folder is not None:
            folder.release()
        raise


def _find_benchmark(
    asked: CheckpointRequest, identity: Mapping[str, JsonValue]
) -> tuple[JournalFolder, str]:
    """What the first rank finds, and the word of it for all."""
    from bench.measure.journal import JournalFolder, finished_records, identity_difference
    from bench.measure.run_state import BenchmarkState

    shown = printable(str(asked.folder))
    try:
        folder = JournalFolder(asked.folder)
    except OSError as error:
        raise UsageError(f"cannot keep checkpoints in {shown}: {error.strerror}") from error
    try:
        manifest = folder.manifest()
        # A launcher that starts ranks anew gives them the command of before.
        going_on = asked.resume or (count_restarts() > 0 and manifest is not None)
        if manifest is None:
            if asked.resume:
                folder.remove()
                raise UsageError(f"nothing to resume in {shown}: run without --resume")
            assert asked.every is not None
            manifest = BenchmarkState(
                benchmark_id=uuid.uuid4().hex, every=asked.every, identity=dict(identity)
            )
        elif not going_on:
            raise UsageError(
                f"a benchmark that is not over is kept in {shown}: go on with --resume, or delete "
                "that folder"
            )
        elif other := identity_difference(manifest.identity, identity):
            raise UsageError(
                f"cannot resume what is kept in {shown}: {other}; run as it was run, or delete "
                "that folder"
            )
        if asked.every is not None:
            manifest = manifest.model_copy(update={"every": asked.every})
        earlier = finished_records(asked.results_dir, manifest.benchmark_id) if going_on else []
    except UsageError:
        folder.release()
        raise
    values = {
        "manifest": manifest.model_dump(mode="json"),
        "earlier": [record.model_dump(mode="json") for record in earlier],
    }
    return folder, json.dumps(values)


def _find_intact_checkpoint(
    asked: CheckpointRequest, manifest: BenchmarkState, accelerator: Accelerator
) -> tuple[BenchmarkState, Checkpoints]:
    """The manifest with a checkpoint that can be read, where it has any."""
    from mnist_cnn.engine.checkpoint import Checkpoints, Point

    def at(point: RunState | None) -> Checkpoints | None:
        """Those of a run that goes on from there; None where that cannot be."""
        if point is None:
            return None
        start = Point(point.seed, point.epoch, point.digests)
        checkpoints = Checkpoints(asked.folder, manifest.every, accelerator, start)
        return checkpoints if checkpoints.intact(start) else None

    newest, older = manifest.current, manifest.previous
    if newest is None or not newest.epoch:
        return manifest, Checkpoints(asked.folder, manifest.every, accelerator)
    if checkpoints := at(newest):
        return manifest, checkpoints
    damaged = f"the checkpoint of epoch {newest.epoch} in {printable(str(asked.folder))} is damaged"
    before = at(older)
    if older is None or before is None:
        raise UsageError(
            f"{damaged} and there is no other before it: delete that folder and run without "
            "--resume"
        )
    if not asked.fall_back:
        raise UsageError(f"{damaged}: add --fall-back to go on from that of epoch {older.epoch}")
    if Rank.from_environment().is_main:
        print(
            f"mnist-bench: warning: {damaged}; going on from that of epoch {older.epoch}",
            file=sys.stderr,
        )
    older = older.model_copy(update={"resumed": newest.resumed})
    return manifest.model_copy(update={"current": older, "previous": None}), before
