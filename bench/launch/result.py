"""The runs of a benchmark, wherever they were made, and the exit status that they add up to."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bench.launch.unsaved import keep_elsewhere
from bench.measure.run_log import FileRunLog
from bench.records.schema import RunRecord
from bench.records.store import save_record
from mnist_cnn.console import EXIT_FAILED, EXIT_INTERRUPTED


@dataclass(slots=True)
class BenchmarkResult:
    """Runs in the order they were made, and how the command ends."""

    runs: list[tuple[Path | None, RunRecord]] = field(default_factory=list)
    """Each record with the file it is in; None where it is not saved by this process."""
    status: int = 0
    """Exit status: 0, or that of the worst run."""
    is_unsaved: bool = False
    """Whether a record could not be saved in the results folder."""
    log: FileRunLog | None = None
    """The log of the runs; None where nobody would read it."""

    def note_printed(self) -> None:
        """Note that the runs are printed, or handed to the process that prints them."""
        if self.log is not None:
            self.log.runs_printed()

    @property
    def records(self) -> list[RunRecord]:
        """The records of the runs."""
        return [record for _, record in self.runs]


def save_or_complain(record: RunRecord, results_dir: Path) -> Path | None:
    """Save a record; where that fails keep it elsewhere, and say in one line where.

    Returns:
        Its file; None where it could not be written in the results folder.
    """
    try:
        return save_record(record, results_dir)
    except OSError as error:
        keep_elsewhere(record, results_dir, error)
        return None


def exit_status_of(record: RunRecord, *, unsaved: bool) -> int:
    """The exit status that one run calls for.

    Args:
        record: the record of the run.
        unsaved: whether the record should have been saved and could not be.
    """
    if record.status == "interrupted":
        return EXIT_INTERRUPTED
    return EXIT_FAILED if unsaved or record.status != "completed" else 0
