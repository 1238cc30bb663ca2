"""Runs sorted into what a page shows side by side: set-ups, numbered from the fastest.

A benchmark is what one command measured; `ab` makes one of each of its runs. A page pools what
differs in nothing else, so that there is a median to show, but only within a folder: whoever put
records into two meant them apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row, Run
from bench.analysis.metrics import completed
from bench.analysis.result_warnings import ResultWarning
from bench.analysis.rows import benchmark_row, run_row, run_rows
from bench.analysis.setup_key import PROMISED_RUNS, SetupKey
from bench.records.schema import RunRecord
from bench.text import printable

COLOURS = 8
"""That can be told apart."""


@dataclass(frozen=True, slots=True)
class SetupSeries:
    """One set-up: the runs of one recipe, made alike."""

    number: int
    """By which the page's tables and figures name it, from 1, the fastest first."""
    pooled: Benchmark
    """All its runs."""
    run_rows: list[Row]
    """What is known of each; see `bench.analysis.rows.run_row`."""
    row: Row
    """What is known of them; see `bench.analysis.rows.benchmark_row`."""
    warnings: dict[ResultWarning, int | None]
    name: str
    """``"fast, 1 process, 2 threads, bf16"``; like every text here, with nothing in it that a
    terminal would obey."""
    detail: str
    """What else tells it from the others: label, folder, device; may be empty."""
    family: str
    """What its colour stands for: itself, or, of many, its recipe and device."""
    colour: int
    """From 1, the same for all of a family; 0 for those that there is no colour left for."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs with their files, in the order they were made."""
        return self.pooled.runs

    @property
    def completed(self) -> list[RunRecord]:
        """The runs that count."""
        return completed(self.pooled.records)

    @property
    def full_name(self) -> str:
        """Name and detail."""
        return f"{self.name} ({self.detail})" if self.detail else self.name

    @property
    def has_own_colour(self) -> bool:
        """Whether no other set-up is meant to share its colour."""
        return self.family == _alone(self.name, self.detail)

    def number_of(self, name: str) -> float | None:
        """The row's number of that name."""
        value = self.row[name]
        return float(value) if isinstance(value, int | float) else None


def setup_series(benchmarks: Iterable[Benchmark]) -> list[SetupSeries]:
    """The set-ups of these benchmarks, by their median time to target; those without one last."""
    groups: dict[SetupKey, list[Benchmark]] = {}
    for benchmark in benchmarks:
        path, record = benchmark.runs[0]
        key = SetupKey.of(record, path).ignoring(
            "benchmark_id", "environment.dirty", *PROMISED_RUNS
        )
        groups.setdefault(key, []).append(benchmark)
    pools = [_pooled(group) for group in groups.values()]
    found = [
        _unnumbered(pool, group, detail)
        for pool, group, detail in zip(pools, groups.values(), _details(pools), strict=True)
    ]
    found.sort(key=_rank)
    own = len(found) <= COLOURS
    families = [_alone(one.name, one.detail) if own else one.family for one in found]
    colours = {family: number for number, family in enumerate(dict.fromkeys(families), start=1)}
    return [
        replace(
            one,
            number=number,
            family=family,
            colour=colours[family] if colours[family] <= COLOURS else 0,
        )
        for number, (one, family) in enumerate(zip(found, families, strict=True), start=1)
    ]


def _pooled(group: Sequence[Benchmark]) -> Benchmark:
    return Benchmark(tuple(run for benchmark in group for run in benchmark.runs))


def _unnumbered(pool: Benchmark, group: Sequence[Benchmark], detail: str) -> SetupSeries:
    """A set-up of which it is not known yet how it compares; its family is recipe and device."""
    row = benchmark_row(pool)
    return SetupSeries(
        number=0,
        pooled=pool,
        run_rows=run_rows([pool]),
        row=row,
        warnings=_warnings(pool, group),
        name=_name(row),
        detail=detail,
        family=printable(f"{row['recipe'] or 'unnamed recipe'} on {row['device_name']}"),
        colour=0,
    )


def _warnings(pool: Benchmark, benchmarks: Sequence[Benchmark]) -> dict[ResultWarning, int | None]:
    """The pool's, and that runs are missing where they are of any benchmark in it."""
    found = dict(pool.warnings)
    found.pop(ResultWarning.RUNS_MISSING, None)
    if any(ResultWarning.RUNS_MISSING in benchmark.warnings for benchmark in benchmarks):
        found[ResultWarning.RUNS_MISSING] = None
    return found


def _rank(one: SetupSeries) -> tuple[bool, float, str, str]:
    median = one.number_of("time_to_target_seconds_median")
    return median is None, median or 0.0, one.name, one.detail


def _name(row: Row) -> str:
    return printable(f"{row['recipe'] or 'unnamed recipe'}, {labels.label_of_row(row)}")


def _alone(name: str, detail: str) -> str:
    return ", ".join(filter(None, (name, detail)))


def _details(pools: Sequence[Benchmark]) -> list[str]:
    """Label, folder, device and commit, as far as they are needed to tell the pools apart."""
    runs = [pool.runs[0] for pool in pools]
    labels = [_quoted(record.label) for _, record in runs]
    folders = [printable(path.parent.name) if path else "" for path, _ in runs]
    devices = [printable(record.setup.device_name) for _, record in runs]
    commits = [f"commit {printable(r.environment.commit or 'unknown')[:7]}" for _, r in runs]
    told = [labels]
    if len(set(folders)) > 1:
        told.append(folders)
    # Folders are named for the machine: where each has one, its name says which.
    if len(set(devices)) > 1 and len(set(zip(folders, devices, strict=True))) > len(set(folders)):
        told.append(devices)
    details = [", ".join(filter(None, parts)) for parts in zip(*told, strict=True)]
    names = list(zip((_name(run_row(run)) for run in runs), details, strict=True))
    return [
        ", ".join(filter(None, (detail, commit))) if names.count((name, detail)) > 1 else detail
        for (name, detail), commit in zip(names, commits, strict=True)
    ]


def _quoted(label: str | None) -> str:
    return f"\u201c{printable(label)}\u201d" if label else ""
