"""Benchmarks as trackers of other projects follow them: one benchmark per name.

A tracker follows a name from commit to commit, so a name says what was measured and never when:
recipe, device, processes, threads, precision, and the label that the user chose. Each name comes
once: runs of one set-up at one commit are one benchmark, and of several commits the newest is
taken. A document lists what it leaves out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from bench import text
from bench.analysis import labels
from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Run
from bench.analysis.metrics import completed
from bench.analysis.setup_key import RUN_COUNT_FIELDS, SetupKey, recipe_name
from bench.records.schema import RunRecord, Status
from bench.text import count_of, printable
from mnist_cnn.errors import UsageError

LONGEST_PART = 200
"""Number of characters that a recipe, a device or a label contributes to a name. Bencher accepts
names of 1,024 characters."""
_LONGEST_VERSION = 60

_MARKUP = str.maketrans({"`": "'", "|": "/", "<": "(", ">": ")", "@": "(at)"})
"""Characters that would end the code span or table cell that holds a name, or mention a user."""


@dataclass(frozen=True, slots=True)
class Document:
    """A file for another tool."""

    text: str
    left_out: tuple[str, ...]
    """A line for each kind of thing that the file does not hold: how many, and why."""


def newest_by_name(benchmarks: Sequence[Benchmark]) -> tuple[dict[str, Benchmark], list[str]]:
    """The newest benchmark of each name that has completed runs, the oldest first.

    Returns:
        The benchmarks by name, and a line for each kind of thing that is left out.

    Raises:
        UsageError: no benchmark has completed runs.
    """
    newest: dict[str, Benchmark] = {}
    older: list[Benchmark] = []
    for benchmark in pool_benchmarks(benchmarks):
        if completed(benchmark.records):
            name = name_of(benchmark)
            if name in newest:
                older.append(newest.pop(name))
            newest[name] = benchmark
    records = [record for benchmark in benchmarks for record in benchmark.records]
    left_out = [_not_completed(records)]
    if not newest:
        raise UsageError(f"nothing to export: {left_out[0]}")
    if older:
        runs = sum(len(completed(benchmark.records)) for benchmark in older)
        left_out.append(
            f"{count_of(len(older), 'benchmark')} ({count_of(runs, 'run')}): newer ones, of "
            "another commit or set-up, have the same names; name fewer paths, or give each a "
            "--label"
        )
    return newest, [line for line in left_out if line]


def pool_benchmarks(benchmarks: Sequence[Benchmark]) -> list[Benchmark]:
    """The same runs, with those of one set-up at one commit in one benchmark.

    `ab` measures each run as a benchmark of its own.

    Returns:
        The benchmarks; the one with the newest run is last.
    """
    groups: dict[tuple[str, SetupKey], list[Run]] = {}
    for benchmark in benchmarks:
        for run in benchmark.runs:
            key = SetupKey.of(run[1]).ignoring(
                "benchmark_id", "division", "environment.dirty", "label", *RUN_COUNT_FIELDS
            )
            groups.setdefault((name_of(benchmark), key), []).append(run)
    pools = [
        Benchmark(tuple(sorted(runs, key=lambda run: run[1].started_utc)))
        for runs in groups.values()
    ]
    return sorted(pools, key=lambda pool: pool.runs[-1][1].started_utc)


def name_of(benchmark: Benchmark) -> str:
    """``"fast on AMD EPYC, 1 process, 2 threads, bf16 (label)"``, fit for a table in Markdown."""
    record = benchmark.runs[0][1]
    recipe, device, label = (
        truncate(printable(part), LONGEST_PART)
        for part in (
            recipe_name(record),
            record.setup.device_name or "unknown device",
            record.label or "",
        )
    )
    name = f"{recipe} on {device}, {labels.label_of_setup(record.setup)}"
    return (f"{name} ({label})" if label else name).translate(_MARKUP)


def truncate(text: str, length: int) -> str:
    """The text, with three dots in place of what exceeds that many characters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def without_time_to_target(benchmarks: Sequence[Benchmark]) -> list[str]:
    """The line about benchmarks without a time to target, if there are any."""
    times = [benchmark.summary("time_to_target_seconds").median for benchmark in benchmarks]
    number = times.count(None)
    if not number:
        return []
    return [
        f"the time to target of {count_of(number, 'benchmark')}: half of the runs or more missed"
    ]


def remarks(benchmark: Benchmark) -> list[str]:
    """What a reader of the bare numbers must know, one line each: runs, misses, warnings."""
    runs = count_of(len(completed(benchmark.records)), "run")
    target = text.target(benchmark.target_accuracy)
    cost = benchmark.seconds_per_success
    per_success = f", {text.seconds(cost.value)} a success" if cost else ""
    environment = benchmark.runs[-1][1].environment
    versions = {
        "commit": environment.commit,
        "version": environment.version,
        "torch_version": environment.torch,
    }
    return [
        f"{runs}, {benchmark.reached} reached {target}{per_success}",
        *(
            f"{name} {truncate(printable(version), _LONGEST_VERSION)}"
            for name, version in versions.items()
            if version
        ),
        *(f"! {warning.value}" for warning in benchmark.warnings),
    ]


def _not_completed(records: Sequence[RunRecord]) -> str:
    """The line about runs that were not completed; empty when all were."""
    outcomes = Counter(record.outcome for record in records)
    del outcomes[Status.COMPLETED.value]
    if not outcomes:
        return ""
    parts = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    return f"{count_of(outcomes.total(), 'run')} not completed: {parts}"
