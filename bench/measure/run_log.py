"""What is measured, written down at once in a file that outlives the process that measures.

One line of JSON for each thing that happens. Where the process dies, `bench.launch.recovery` makes
the records of it. Only rank 0 has a log, and only where a guardian waits for its end.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.measure.guard_folder import LOG_NAME, guard_folder
from bench.measure.instruments import RunLog
from bench.measure.request import OutputRequest
from bench.measure.seed_share import SeedShare
from bench.records.schema import (
    Evaluation,
    Lap,
    RunRecord,
    Status,
    TrainedEpoch,
    first_reached,
)
from mnist_cnn.disk import read_file
from mnist_cnn.escaping import tell
from mnist_cnn.rank import Rank

_LARGEST_LOG_BYTES = 1024**3


@dataclass(slots=True)
class LoggedRun:
    """A run as its log tells it."""

    draft: RunRecord
    """The record as it would be if the run had ended at once, without a reason."""
    laps: list[Lap] = field(default_factory=list)
    epochs: list[TrainedEpoch] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)
    record: RunRecord | None = None
    """The record that the process made; None where it did not come to that."""
    is_kept: bool = False
    """Whether the process has saved the record, or has said where it is instead."""

    def record_of_the_end(self, status: str, reason: str) -> RunRecord:
        """The record of the run, which did not end by itself unless the process made one."""
        if self.record is not None:
            return self.record
        values = self.draft.model_dump(mode="json")
        elapsed = max((lap.start_seconds + lap.seconds for lap in self.laps), default=0.0)
        values["load"]["elapsed_seconds"] = max(0.0, elapsed)
        values |= {
            "status": status,
            "reason": reason,
            "laps": [*values["laps"], *_dumped(self.laps)],
            "epochs": [*values["epochs"], *_dumped(self.epochs)],
            "evaluations": [*values["evaluations"], *_dumped(self.evaluations)],
        }
        evaluations = [*self.draft.evaluations, *self.evaluations]
        values["samples_seen"] = sum(epoch["samples"] for epoch in values["epochs"])
        values["target_reached_epoch"] = first_reached(
            evaluations, self.draft.protocol.target_accuracy
        )
        values["final_accuracy"] = evaluations[-1].accuracy if evaluations else None
        try:
            return RunRecord.model_validate(values)
        except ValueError:  # a damaged log: each lap may be one, and all together none of a run
            return self.draft.model_copy(update={"status": Status(status), "reason": reason})


@dataclass(slots=True)
class LoggedBenchmark:
    """All that a log tells."""

    results_dir: Path | None = None
    """Folder of the records; None where they are not kept."""
    working_dir: Path = Path()
    """Folder in which the command was started."""
    share_records: Path | None = None
    """Folder in which the process leaves its records for its parent; None without one."""
    as_json: bool = False
    runs: list[LoggedRun] = field(default_factory=list)
    is_printed: bool = False
    """Whether the process has printed its runs."""


class FileRunLog(RunLog):
    """Writes the log.

    Args:
        path: the file, which is made.
        output: where the records go.
        share: the runs of this process, where there are others.
    """

    def __init__(self, path: Path, output: OutputRequest, share: SeedShare | None) -> None:
        self._path = path
        self._descriptor = -1
        try:
            self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        except OSError:
            self._give_up()
        self._add(
            "benchmark",
            {
                "results_dir": None if output.results_dir is None else str(output.results_dir),
                "working_dir": _working_dir(),
                "share_records": None if share is None else share.records or None,
                "as_json": output.as_json,
            },
        )

    def run_begun(self, draft: RunRecord) -> None:
        """Write what is known of a run before it begins."""
        self._add("begun", draft.model_dump(mode="json"))

    def lap_over(
        self, lap: Lap, epoch: TrainedEpoch | None = None, evaluation: Evaluation | None = None
    ) -> None:
        """Write a lap and what it led to."""
        happened = {"lap": lap.model_dump(mode="json")}
        if epoch is not None:
            happened["epoch"] = epoch.model_dump(mode="json")
        if evaluation is not None:
            happened["evaluation"] = evaluation.model_dump(mode="json")
        self._add("over", happened)

    def run_over(self, record: RunRecord) -> None:
        """Write the record of a run, before it is saved."""
        self._add("record", record.model_dump(mode="json"))

    def record_kept(self) -> None:
        """Write that the record of the last run is saved, or was said to be elsewhere."""
        self._add("kept", None)

    def runs_printed(self) -> None:
        """Write that all runs are saved and printed."""
        self._add("printed", None)

    def _add(self, kind: str, what: Any) -> None:
        """Write a line; where that fails, once and for all, there is no log."""
        if self._descriptor < 0:
            return
        line = (json.dumps([kind, what]) + "\n").encode()
        try:
            # One call of the system for a line: a process that dies leaves whole lines.
            is_whole = os.write(self._descriptor, line) == len(line)
        except OSError:
            is_whole = False
        if not is_whole:
            os.close(self._descriptor)
            self._descriptor = -1
            self._path.unlink(missing_ok=True)
            self._give_up()

    def _give_up(self) -> None:
        """Say that the measurement goes on without a log."""
        tell(
            f"mnist-bench: warning: {self._path.parent} takes no more, so a process that dies from "
            "now on leaves no record: free some space there"
        )


def open_run_log(output: OutputRequest, share: SeedShare | None) -> FileRunLog | None:
    """The log of this process; None for other ranks than 0, and where nobody would read it."""
    folder = guard_folder()
    if folder is None or not Rank.from_environment().is_main:
        return None
    return FileRunLog(log_path(folder), output, share)


def log_path(folder: Path) -> Path:
    """The log's file in the folder of a guardian."""
    return folder / LOG_NAME


def read_run_log(path: Path) -> LoggedBenchmark:
    """What a log tells, up to its first line that is none of a log: the last one may be torn.

    Raises:
        OSError: it cannot be read.
    """
    benchmark = LoggedBenchmark()
    for line in read_file(path, _LARGEST_LOG_BYTES).splitlines():
        try:
            kind, what = json.loads(line)
            _read_line(benchmark, kind, what)
        except (ValueError, TypeError, LookupError, RecursionError):
            break
    return benchmark


def _read_line(benchmark: LoggedBenchmark, kind: str, what: Any) -> None:
    match kind:
        case "benchmark":
            if what["results_dir"] is not None:
                benchmark.results_dir = Path(what["results_dir"])
            benchmark.working_dir = Path(what.get("working_dir", ""))
            if what["share_records"] is not None:
                benchmark.share_records = Path(what["share_records"])
            benchmark.as_json = what["as_json"]
        case "begun":
            benchmark.runs.append(LoggedRun(RunRecord.model_validate(what)))
        case "over":
            run = benchmark.runs[-1]
            run.laps.append(Lap.model_validate(what["lap"]))
            if "epoch" in what:
                run.epochs.append(TrainedEpoch.model_validate(what["epoch"]))
            if "evaluation" in what:
                run.evaluations.append(Evaluation.model_validate(what["evaluation"]))
        case "record":
            benchmark.runs[-1].record = RunRecord.model_validate(what)
        case "kept":
            benchmark.runs[-1].is_kept = True
        case "printed":
            benchmark.is_printed = True


def _working_dir() -> str:
    """The current folder; empty where it was removed."""
    try:
        return os.getcwd()  # noqa: PTH109
    except OSError:
        return ""


def _dumped(parts: list[Lap] | list[TrainedEpoch] | list[Evaluation]) -> list[dict[str, Any]]:
    return [part.model_dump(mode="json") for part in parts]
