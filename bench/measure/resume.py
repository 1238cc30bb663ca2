"""Find the benchmark that `run --resume` continues, or begin one whose state is saved."""

from __future__ import annotations

import json
import os
import sys
import uuid
from collections.abc import Mapping

from accelerate import Accelerator
from pydantic import JsonValue

from bench.measure.journal import Journal, JournalFolder, finished_records, identity_difference
from bench.measure.request import CheckpointRequest
from bench.measure.run_state import BenchmarkState, RunState
from bench.records.schema import RunRecord
from bench.text import printable
from mnist_cnn.disk import refusal_of
from mnist_cnn.distributed import broadcast_from_main
from mnist_cnn.engine.checkpoint import Checkpoints, Point
from mnist_cnn.errors import UsageError
from mnist_cnn.rank import Rank


def count_restarts() -> int:
    """How often the launcher restarted all ranks (torchrun's and Accelerate's elastic launch).

    Source: https://docs.pytorch.org/docs/stable/elastic/run.html#environment-variables
    """
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(count) if count.isdecimal() else 0


def open_journal(
    request: CheckpointRequest, identity: Mapping[str, JsonValue], accelerator: Accelerator
) -> tuple[Journal, Checkpoints]:
    """Open the benchmark to resume, or begin a new one. Every rank calls this.

    Args:
        request: where checkpoints are and how often they are saved.
        identity: what must be the same as when the benchmark was interrupted, by name.
        accelerator: the ranks.

    Raises:
        UsageError: there is nothing to resume, it is another benchmark or damaged, or an unfinished
            benchmark would be lost; the same on every rank.
    """
    folder: JournalFolder | None = None
    message = ""
    if Rank.from_environment().is_main:
        try:
            folder, message = _find_benchmark(request, identity)
        except UsageError as error:
            message = json.dumps({"refusal": str(error)})
    try:
        values = json.loads(broadcast_from_main(message, accelerator))
        if "refusal" in values:
            raise UsageError(values["refusal"])
        state = BenchmarkState.model_validate(values["manifest"])
        # Another machine may not have the folder yet.
        request.folder.mkdir(parents=True, exist_ok=True)
        state, checkpoints = _find_intact_checkpoint(request, state, accelerator)
        earlier = [RunRecord.model_validate(record) for record in values["earlier"]]
        return Journal(folder, state, earlier, state.current), checkpoints
    except UsageError:
        if folder is not None:
            folder.release()
        raise


def _find_benchmark(
    request: CheckpointRequest, identity: Mapping[str, JsonValue]
) -> tuple[JournalFolder, str]:
    """Look for a benchmark in the folder, on the main rank.

    Returns:
        The locked folder, and its state and complete records as JSON for the other ranks.
    """
    shown = printable(str(request.folder))
    try:
        folder = JournalFolder(request.folder)
    except OSError as error:
        raise UsageError(f"cannot keep checkpoints in {shown}: {refusal_of(error)}") from error
    try:
        stored = folder.manifest()
        # A launcher that restarts the ranks repeats their first command, without --resume.
        resuming = request.resume or (count_restarts() > 0 and stored is not None)
        if stored is None:
            state = _new_benchmark(request, identity, folder)
        else:
            state = _stored_benchmark(request, identity, stored, resuming=resuming)
        if request.every is not None:
            state = state.model_copy(update={"every": request.every})
        records = finished_records(request.results_dir, state.benchmark_id) if resuming else []
    except UsageError:
        folder.release()
        raise
    values = {
        "manifest": state.model_dump(mode="json"),
        "earlier": [record.model_dump(mode="json") for record in records],
    }
    return folder, json.dumps(values)


def _new_benchmark(
    request: CheckpointRequest, identity: Mapping[str, JsonValue], folder: JournalFolder
) -> BenchmarkState:
    if request.resume:
        folder.remove()
        raise UsageError(
            f"nothing to resume in {printable(str(request.folder))}: run without --resume"
        )
    assert request.every is not None
    return BenchmarkState(
        benchmark_id=uuid.uuid4().hex, every=request.every, identity=dict(identity)
    )


def _stored_benchmark(
    request: CheckpointRequest,
    identity: Mapping[str, JsonValue],
    stored: BenchmarkState,
    *,
    resuming: bool,
) -> BenchmarkState:
    shown = printable(str(request.folder))
    if not resuming:
        raise UsageError(
            f"an unfinished benchmark is kept in {shown}: continue it with --resume, or delete "
            "that folder"
        )
    if difference := identity_difference(stored.identity, identity):
        raise UsageError(
            f"cannot resume what is kept in {shown}: {difference}; use the same options as before, "
            "or delete that folder"
        )
    if not all(_is_possible(run, identity) for run in (stored.current, stored.previous) if run):
        raise UsageError(
            f"what is kept in {shown} is no state of this benchmark: delete that folder and run "
            "without --resume"
        )
    return stored


def _is_possible(run: RunState, identity: Mapping[str, JsonValue]) -> bool:
    """Whether a run of this benchmark may be in that state."""
    runs, first_seed, epochs, processes = (
        int(str(identity[name])) for name in ("protocol.runs", "seed", "recipe.epochs", "processes")
    )
    return (
        run.run_index <= runs
        and first_seed <= run.seed < first_seed + runs
        and run.epoch < epochs
        and len(run.digests) == (processes if run.epoch else 0)
        and [trained.epoch for trained in run.epochs] == list(range(1, run.epoch + 1))
        and all(evaluation.epoch <= run.epoch for evaluation in run.evaluations)
    )


def _find_intact_checkpoint(
    request: CheckpointRequest, state: BenchmarkState, accelerator: Accelerator
) -> tuple[BenchmarkState, Checkpoints]:
    """The state whose checkpoint is readable on every rank, and its checkpoint if it has one."""

    def open_checkpoint(run: RunState | None) -> Checkpoints | None:
        if run is None:
            return None
        point = Point(run.seed, run.epoch, run.digests)
        checkpoints = Checkpoints(request.folder, state.every, accelerator, point)
        return checkpoints if checkpoints.intact(point) else None

    newest, previous = state.current, state.previous
    if newest is None or not newest.epoch:
        return state, Checkpoints(request.folder, state.every, accelerator)
    if checkpoints := open_checkpoint(newest):
        return state, checkpoints
    damaged = (
        f"the checkpoint of epoch {newest.epoch} in {printable(str(request.folder))} is damaged"
    )
    checkpoints = open_checkpoint(previous)
    if previous is None or checkpoints is None:
        raise UsageError(
            f"{damaged} and there is no previous one: delete that folder and run without --resume"
        )
    if not request.fall_back:
        raise UsageError(
            f"{damaged}: add --fall-back to resume from that of epoch {previous.epoch}"
        )
    if Rank.from_environment().is_main:
        print(
            f"mnist-bench: warning: {damaged}; resuming from that of epoch {previous.epoch}",
            file=sys.stderr,
        )
    previous = previous.model_copy(update={"resumed": newest.resumed})
    return state.model_copy(update={"current": previous, "previous": None}), checkpoints
