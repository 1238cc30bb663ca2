"""A record that the results folder does not take: it is kept elsewhere, and a line says where.

A run takes minutes to measure, so its record is not given up: it goes to the user's state folder,
else to a folder for temporary files, and at last to stderr.
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from pathlib import Path

from bench.records.schema import RunRecord
from bench.records.store import record_path, save_record
from bench.text import printable
from mnist_cnn.disk import advice_for
from mnist_cnn.errors import reason_of
from mnist_cnn.user_folders import save_elsewhere


def keep_elsewhere(record: RunRecord, results_dir: Path, error: OSError) -> None:
    """Keep a record outside its results folder, and print where and how to bring it back.

    Args:
        record: the record.
        results_dir: the folder that did not take it.
        error: why not.
    """
    problem = (
        f"mnist-bench: error: the record could not be saved in {printable(str(results_dir))}: "
        f"{reason_of(error)}; {advice_for(error)}"
    )
    kept = save_elsewhere(
        record.benchmark_id[:8], lambda folder: (folder, save_record(record, folder))
    )
    if kept is not None:
        folder, path = kept
        command = _command(folder, results_dir)
        _print(f"{problem}; it is kept as {printable(str(path))}; then: {printable(command)}")
        return
    path = record_path(record, results_dir)
    _print(f"{problem}; then save the next line as {printable(str(path))}")
    # One line, and in ASCII: whatever stderr is, it can be read again.
    _print(json.dumps(record.model_dump(mode="json"), allow_nan=False))


def _command(folder: Path, results_dir: Path) -> str:
    """A shell command that brings the records of a folder into the results folder."""
    destination = os.path.normpath(results_dir)
    return (
        f"mkdir -p {shlex.quote(destination)} && "
        f"cp -R {shlex.quote(str(folder))}/. {shlex.quote(destination)}"
    )


def _print(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
