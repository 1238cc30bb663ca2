"""Runs sorted into the set-ups that a page compares, numbered from the fastest.

A benchmark is what one command measured; `ab` makes one of each of its runs. A page pools the
benchmarks of one set-up, so that it can show their median, but only within a folder: records in
two folders were separated on purpose.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Run, column
from bench.analysis.metrics import completed
from bench.analysis.result_warnings import UNRANKED, ResultWarning
from bench.analysis.setup_key import RUN_COUNT_FIELDS, UNNAMED_RECIPE, SetupKey
from bench.records.schema import RunRecord
from bench.text import printable

COLOUR_COUNT = 8
"""Number of colours that readers can tell apart."""


@dataclass(frozen=True, slots=True)
class SetupSeries:
    """One set-up: all runs of one recipe on one device with the same settings.

    Its texts hold no control characters.
    """

    number: int
    """Number in the page's tables and figures, from 1, the fastest first."""
    benchmark: Benchmark
    """All runs of the set-up."""
    warnings: dict[ResultWarning, int | None]
    """Warnings about its results, each with the number of runs concerned, None for all together."""
    name: str
    """Recipe and set-up: ``"fast, 1 process, 2 threads, bf16"``."""
    detail: str
    """What else distinguishes it from the other set-ups: label, folder, device; may be empty."""
    colour_group: str
    """The set-ups of one colour: this one alone or, on a page of many set-ups, all of one recipe on
    one device. Legends show this text."""
    colour: int
    """Number of the colour of its group, from 1; 0 when no colour is left."""

    @property
    def runs(self) -> tuple[Run, ...]:
        """The runs with their files, in the order they were made."""
        return self.benchmark.runs

    @property
    def first_record(self) -> RunRecord:
        """The record of the first run."""
        return self.runs[0][1]

    @property
    def completed(self) -> list[RunRecord]:
        """The records of the completed runs."""
        return completed(self.benchmark.records)

    @property
    def ranked(self) -> bool:
        """Whether its times are the machine's; if not, it stands below the others."""
        return not UNRANKED.intersection(self.warnings)

    @property
    def full_name(self) -> str:
        """Name and detail."""
        return f"{self.name} ({self.detail})" if self.detail else self.name

    @property
    def has_own_colour(self) -> bool:
        """Whether its colour stands for no other set-up."""
        return self.colour_group == _own_colour_group(self)

    def median(self, column_name: str) -> float | None:
        """The median of a measured column; None when it is not known."""
        return self.benchmark.summary(column_name).median


def setup_series(benchmarks: Iterable[Benchmark]) -> list[SetupSeries]:
    """The set-ups of these benchmarks, by their median time to target; those without one last.

    Below all others are those whose times are not the machine's (`result_warnings.UNRANKED`).
    """
    groups: dict[SetupKey, list[Benchmark]] = {}
    for benchmark in benchmarks:
        path, record = benchmark.runs[0]
        key = SetupKey.of(record, path).ignoring(
            "benchmark_id", "environment.dirty", *RUN_COUNT_FIELDS
        )
        groups.setdefault(key, []).append(benchmark)
    pools = [_pool(group) for group in groups.values()]
    without_number = [
        _without_number(pool, group, detail)
        for pool, group, detail in zip(pools, groups.values(), _details(pools), strict=True)
    ]
    without_number.sort(key=_sort_key)
    colour_groups = [
        _own_colour_group(series) if len(without_number) <= COLOUR_COUNT else series.colour_group
        for series in without_number
    ]
    colours = {group: colour for colour, group in enumerate(dict.fromkeys(colour_groups), start=1)}
    return [
        replace(
            series,
            number=number,
            colour_group=group,
            colour=colours[group] if colours[group] <= COLOUR_COUNT else 0,
        )
        for number, (series, group) in enumerate(
            zip(without_number, colour_groups, strict=True), start=1
        )
    ]


def _pool(benchmarks: Sequence[Benchmark]) -> Benchmark:
    return Benchmark(tuple(run for benchmark in benchmarks for run in benchmark.runs))


def _without_number(pool: Benchmark, group: Sequence[Benchmark], detail: str) -> SetupSeries:
    """A set-up without number and colour, which depend on the others."""
    first_run = pool.runs[0]
    device_name = column("device_name").cell(first_run)
    return SetupSeries(
        number=0,
        benchmark=pool,
        warnings=_warnings(pool, group),
        name=_name(first_run),
        detail=detail,
        colour_group=printable(f"{_recipe_name(first_run)} on {device_name}"),
        colour=0,
    )


def _warnings(pool: Benchmark, group: Sequence[Benchmark]) -> dict[ResultWarning, int | None]:
    """The pool's warnings; whether runs are missing is judged by the benchmarks it was made of."""
    warnings = dict(pool.warnings)
    for kind in (ResultWarning.RUNS_MISSING, ResultWarning.ENDED_EARLY):
        warnings.pop(kind, None)
        if any(kind in benchmark.warnings for benchmark in group):
            warnings[kind] = None
    return warnings


def _sort_key(series: SetupSeries) -> tuple[bool, float, str, str]:
    median = series.median("time_to_target_seconds")
    seconds = math.inf if median is None else median
    return not series.ranked, seconds, series.name, series.detail


def _recipe_name(run: Run) -> str:
    return str(column("recipe").cell(run) or UNNAMED_RECIPE)


def _name(run: Run) -> str:
    return printable(f"{_recipe_name(run)}, {labels.label_of_setup(run[1].setup)}")


def _own_colour_group(series: SetupSeries) -> str:
    return ", ".join(filter(None, (series.name, series.detail)))


def _details(pools: Sequence[Benchmark]) -> list[str]:
    """Label, folder, device and commit, as far as they are needed to distinguish the pools."""
    runs = [pool.runs[0] for pool in pools]
    quoted_labels = [_quoted(record.label) for _, record in runs]
    folders = [printable(path.parent.name) if path else "" for path, _ in runs]
    devices = [printable(_device(run)) for run in runs]
    commits = [labels.label_of_code(r.environment, 7) or "commit unknown" for _, r in runs]
    parts_of_all = [quoted_labels]
    if len(set(folders)) > 1:
        parts_of_all.append(folders)
    # A folder is usually named for its machine: then the device adds nothing.
    if len(set(devices)) > 1 and len(set(zip(folders, devices, strict=True))) > len(set(folders)):
        parts_of_all.append(devices)
    details = [", ".join(filter(None, parts)) for parts in zip(*parts_of_all, strict=True)]
    names = list(zip(map(_name, runs), details, strict=True))
    return [
        ", ".join(filter(None, (detail, commit))) if names.count((name, detail)) > 1 else detail
        for (name, detail), commit in zip(names, commits, strict=True)
    ]


def _device(run: Run) -> str:
    """The device's name, and the key of its machine where it is known."""
    names = column("device_name").cell(run), column("machine").cell(run)
    return " ".join(str(name) for name in names if name)


def _quoted(label: str | None) -> str:
    return f"\u201c{printable(label)}\u201d" if label else ""
