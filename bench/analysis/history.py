"""One line a machine and set-up over commits: images a second, and between which they changed.

Commits stand in the order in which they were first measured. A change is named where images a
second differ between two neighbours by more than sessions of one machine do, and the interval of
their ratio excludes 1; not where torch or a driver differs too, or files differed from a commit.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path

from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.case_comparison import seconds_per_image
from bench.analysis.cases import match_cases
from bench.analysis.metrics import completed
from bench.analysis.run_sets import RunSet
from bench.analysis.sessions import SESSION_SHIFT, share_session
from bench.analysis.setup_key import recipe_name
from bench.records.machine_key import MachineKey
from bench.records.schema import RunRecord
from bench.stats.intervals import Estimate
from mnist_cnn.errors import UsageError

COMMIT_DIGITS = 7


@dataclass(frozen=True, slots=True)
class HistoryPoint:
    """All runs of a set-up on a machine at one commit."""

    code: str
    """The commit's first letters, or the version of an installed copy."""
    benchmark: Benchmark
    """Its runs, of every benchmark of that commit."""
    change: Estimate | None = None
    """Images a second against those of the point before, with the interval of their ratio, where
    they changed; None where nothing established that they did."""

    @property
    def started(self) -> datetime:
        """When the first of its runs started."""
        return min(record.started_utc for record in self.benchmark.records)


@dataclass(frozen=True, slots=True)
class HistoryLine:
    """A recipe on a machine with one set-up, at two commits or more."""

    setup: str
    """Recipe, set-up and label, as records have them: not yet printable."""
    machine: str
    """The device's name, and the machine's key where it is known; likewise."""
    points: tuple[HistoryPoint, ...]
    """In the order in which they were first measured."""


def history_lines(benchmarks: Iterable[Benchmark]) -> list[HistoryLine]:
    """The lines of these benchmarks, that with the most commits first.

    A recipe is known by its name: its values may have changed from commit to commit, and with them
    what an image takes. Folders are not mixed: their records were separated on purpose. Runs that
    were not completed do not count.
    """
    groups: dict[tuple[str, str, Path | None], dict[str, list[Benchmark]]] = {}
    for benchmark in benchmarks:
        path, record = benchmark.runs[0]
        code = labels.label_of_code(record.environment, COMMIT_DIGITS)
        if code is not None and completed(benchmark.records):
            group = groups.setdefault((*_names(record), path and path.parent), {})
            group.setdefault(code.removeprefix("commit "), []).append(benchmark)
    lines = [
        HistoryLine(setup, machine, _points(codes))
        for (setup, machine, _), codes in groups.items()
        if len(codes) > 1
    ]
    lines.sort(key=lambda line: -len(line.points))
    comparisons = sum(len(line.points) - 1 for line in lines)
    return [_with_changes(line, comparisons) for line in lines]


def _names(record: RunRecord) -> tuple[str, str]:
    """`HistoryLine.setup` and `HistoryLine.machine`."""
    label = f" [{record.label}]" if record.label else ""
    return (
        f"{recipe_name(record)}, {labels.label_of_setup(record.setup)}{label}",
        labels.machine_label(record.setup.device_name, MachineKey.of(record.environment)),
    )


def _points(codes: dict[str, list[Benchmark]]) -> tuple[HistoryPoint, ...]:
    points = [
        HistoryPoint(code, Benchmark(tuple(run for benchmark in group for run in benchmark.runs)))
        for code, group in codes.items()
    ]
    return tuple(sorted(points, key=lambda point: point.started))


def _with_changes(line: HistoryLine, comparisons: int) -> HistoryLine:
    changed = [
        HistoryPoint(new.code, new.benchmark, _change(old, new, comparisons))
        for old, new in pairwise(line.points)
    ]
    return HistoryLine(line.setup, line.machine, (line.points[0], *changed))


def _change(old: HistoryPoint, new: HistoryPoint, comparisons: int) -> Estimate | None:
    """The ratio of images a second, new to old; None where it may be something else."""
    sides = [completed(point.benchmark.records) for point in (old, new)]
    environments = [run.environment for side in sides for run in side]
    software = {(each.torch, each.accelerate, each.driver) for each in environments}
    if len(software) > 1 or any(each.dirty for each in environments):
        return None
    try:
        (case,) = match_cases(*(RunSet("a commit", tuple(runs)) for runs in sides)).cases
        ratio = seconds_per_image(case, comparisons).difference
    except (UsageError, ValueError, ZeroDivisionError):  # what compare refuses has no ratio either
        return None
    if ratio is None or ratio.low is None or ratio.high is None:
        return None
    needed = 0.0 if share_session(*sides) else SESSION_SHIFT
    if ratio.low <= 1 <= ratio.high or 1 / (1 + needed) <= ratio.value <= 1 + needed:
        return None
    return Estimate(1 / ratio.value, 1 / ratio.high, 1 / ratio.low)
