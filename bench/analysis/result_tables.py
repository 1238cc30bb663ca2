"""Benchmarks in the tables of the results page: by division, device, target and protocol."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePath

from bench.analysis.benchmarks import Benchmark, group_runs, pool_single_runs
from bench.analysis.columns import Run
from bench.analysis.protocol_rules import table_protocol
from bench.analysis.result_warnings import ranked


@dataclass(frozen=True, slots=True)
class ResultEntry:
    """A row of the results page: a benchmark, and the folder of its records."""

    folder: str
    """Path of the records' folder below the results folder, with slashes; "." is that folder."""
    benchmark: Benchmark

    @property
    def id(self) -> str:
        """The first characters of its first run's benchmark id, by which a reader finds the row."""
        return self.benchmark.runs[0][1].benchmark_id[:8]


@dataclass(frozen=True, slots=True)
class ResultTable:
    """The subject of a table; only rows of the same table may be compared."""

    name: str
    """The division."""
    device: str
    """Device type, as in `Setup.device`."""
    target_accuracy: float
    protocol_version: int
    """Version of the protocol by which all rows could have been measured as they were."""

    @property
    def order(self) -> tuple[str, str, float, int]:
        """Place among the tables: the newest protocol first."""
        return self.name, self.device, self.target_accuracy, -self.protocol_version


def find_entries(runs: Iterable[Run], results_dir: Path) -> list[ResultEntry]:
    """The rows of these records, folder by folder, the oldest first."""
    folders: dict[str, list[Run]] = {}
    for path, record in runs:
        folder = "." if path is None else PurePath(os.path.relpath(path.parent, results_dir))
        folders.setdefault(PurePath(folder).as_posix(), []).append((path, record))
    return [
        ResultEntry(folder, benchmark)
        for folder in sorted(folders)
        for benchmark in pool_single_runs(group_runs(folders[folder]))
    ]


def group_into_tables(entries: Iterable[ResultEntry]) -> dict[ResultTable, list[ResultEntry]]:
    """Tables in order of division, device type, target and protocol; in each, the fastest first.

    Below all others are the rows whose times are not the machine's (`result_warnings.UNRANKED`).
    """
    tables: dict[ResultTable, list[ResultEntry]] = {}
    for entry in entries:
        record = entry.benchmark.runs[0][1]
        key = ResultTable(
            record.division,
            record.setup.device,
            record.protocol.target_accuracy,
            table_protocol(record),
        )
        tables.setdefault(key, []).append(entry)
    ordered = sorted(tables, key=lambda table: table.order)
    return {key: sorted(tables[key], key=_rank) for key in ordered}


def _rank(entry: ResultEntry) -> tuple[bool, float]:
    """Sorts doubtful benchmarks below the others, then the fastest first."""
    return not ranked(entry.benchmark.records), _median_seconds(entry)


def _median_seconds(entry: ResultEntry) -> float:
    """The median time to target; infinite where half of the runs or more missed it."""
    median = entry.benchmark.summary("time_to_target_seconds").median
    return math.inf if median is None else median
