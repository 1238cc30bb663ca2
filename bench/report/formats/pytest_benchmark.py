"""Benchmarks as pytest-benchmark's JSON, for `pytest-benchmark compare` and similar tools.

A "test" is one kind of time of one benchmark (time to target, training, evaluation, ...), and a
"round" of a test is one completed run, or one process for what happens once a process. Tests are
grouped by the kind of time, so that a table holds set-ups that may be compared. Other values, such
as accuracy, are in `extra_info`.
"""

from __future__ import annotations

import json
import math
import statistics
from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import MEDIAN_ENDS, SUMMARY_PARTS
from bench.analysis.metrics import completed
from bench.analysis.rows import benchmark_row
from bench.analysis.units import Cell
from bench.records.schema import Environment
from bench.report.formats.measures import measured_seconds
from bench.report.formats.tracked import (
    LONGEST_PART,
    Document,
    name_of,
    newest_by_name,
    remarks,
    truncate,
)
from bench.stats.sums import exact_sum
from bench.text import count_of, printable

Statistics = dict[str, float | str]

_BEYOND_A_FENCE = 1.5
"""Distance from the quartiles, in interquartile ranges, beyond which Tukey sees an outlier."""
_EXTRA = ("final_accuracy", "best_accuracy", "images_per_second", "peak_memory_bytes")


def to_pytest_benchmark(benchmarks: Sequence[Benchmark]) -> Document:
    """One document, as `pytest --benchmark-json` would have written it."""
    newest, left_out = newest_by_name(benchmarks)
    tests, missed, out_of_range = [], 0, 0
    for benchmark in newest.values():
        missed += len(completed(benchmark.records)) - benchmark.reached
        for kind, seconds in measured_seconds(benchmark).items():
            if not seconds:
                continue
            if values := round_statistics(seconds):
                tests.append(_test(benchmark, kind, values))
            else:
                out_of_range += 1
    if missed:
        left_out.append(
            f"the times to target of {count_of(missed, 'run')} that missed it: there are none "
            "(runs and runs_reached in extra_info count them)"
        )
    if out_of_range:
        left_out.append(
            f"{count_of(out_of_range, 'kind')} of times, too long or short for a number"
        )
    document = _about(list(newest.values())) | {"benchmarks": tests}
    return Document(json.dumps(document, indent=4, allow_nan=False) + "\n", tuple(left_out))


def round_statistics(seconds: Sequence[float]) -> Statistics | None:
    """The statistics that pytest-benchmark keeps of a test's rounds, by its definitions.

    Args:
        seconds: the time of each round; at least one.

    Returns:
        The statistics by pytest-benchmark's names; None when one of them is not finite.
    """
    data = sorted(seconds)
    total = exact_sum(data)
    if not math.isfinite(total):
        return None
    try:
        mean = statistics.mean(data)
        deviation = statistics.stdev(data) if len(data) > 1 else 0.0
    except OverflowError:
        return None
    low, high = _quartiles(data)
    spread = high - low
    fences = low - _BEYOND_A_FENCE * spread, high + _BEYOND_A_FENCE * spread
    stddev_outliers = sum(not mean - deviation <= value <= mean + deviation for value in data)
    iqr_outliers = sum(not fences[0] <= value <= fences[1] for value in data)
    values: Statistics = {
        "min": data[0],
        "max": data[-1],
        "mean": mean,
        "stddev": deviation,
        "rounds": len(data),
        "median": statistics.median(data),
        "iqr": spread,
        "q1": low,
        "q3": high,
        "iqr_outliers": iqr_outliers,
        "stddev_outliers": stddev_outliers,
        "outliers": f"{stddev_outliers};{iqr_outliers}",
        "ld15iqr": data[bisect_left(data, fences[0])],
        "hd15iqr": data[bisect_right(data, fences[1]) - 1],
        "ops": len(data) / total if total else 0,
        "total": total,
        "iterations": 1,
    }
    numbers = [value for value in values.values() if not isinstance(value, str)]
    return values if all(map(math.isfinite, numbers)) else None


def _quartiles(data: Sequence[float]) -> tuple[float, float]:
    """Medians of the halves; for an odd count Wikipedia's "method 3", like pytest-benchmark."""
    count = len(data)
    if count == 1:
        return data[0], data[0]
    if count % 2 == 0:
        return statistics.median(data[: count // 2]), statistics.median(data[count // 2 :])
    quarter = count // 4
    if count % 4 == 1:
        low = 0.25 * data[quarter - 1] + 0.75 * data[quarter]
        return low, 0.75 * data[3 * quarter] + 0.25 * data[3 * quarter + 1]
    low = 0.75 * data[quarter] + 0.25 * data[quarter + 1]
    return low, 0.25 * data[3 * quarter + 1] + 0.75 * data[3 * quarter + 2]


def _test(benchmark: Benchmark, kind: str, values: Statistics) -> dict[str, object]:
    name = name_of(benchmark)
    row = benchmark_row(benchmark)
    return {
        "group": kind,
        "name": name,
        "fullname": f"mnist-bench::{kind}[{name}]",
        "params": {
            part: _short(row[part])
            for part in ("recipe", "device_name", "processes", "threads", "precision", "kernels")
        },
        "param": name,
        "extra_info": {
            "runs": len(completed(benchmark.records)),
            "runs_reached": benchmark.reached,
            "target_accuracy": benchmark.target_accuracy,
            "time_to_target_seconds_expected": row["time_to_target_seconds_expected"],
            **{
                f"{column}_{part}": row[f"{column}_{part}"]
                for column in _EXTRA
                for part in (*SUMMARY_PARTS, *MEDIAN_ENDS)
            },
            **{part: _short(row[part]) for part in ("division", "label", "commit")},
            "remarks": remarks(benchmark),
        },
        "options": {},
        "stats": values,
    }


def _about(benchmarks: Sequence[Benchmark]) -> dict[str, object]:
    """The machine and the commit: each fact that all runs share, and null for the others."""
    records = [record for benchmark in benchmarks for record in benchmark.records]
    environments = [record.environment for record in records]
    machine = {
        "processor": _shared(environments, "cpu"),
        "system": _shared(environments, "os"),
        "python_version": _shared(environments, "python"),
        "device_name": _shared(environments, "device_name"),
        "cpu": {"count": _shared(environments, "logical_cores")},
    }
    commit = {"id": _shared(environments, "commit"), "dirty": _shared(environments, "dirty")}
    started = max((record.started_utc for record in records), default=None)
    return {
        "machine_info": {name: _printable(value) for name, value in machine.items()},
        "commit_info": {name: _printable(value) for name, value in commit.items()}
        | {"project": "mnist-bench", "branch": None, "time": None},
        "datetime": started.isoformat() if started else None,
        # Normally pytest-benchmark's version; no tool reads it.
        "version": "mnist-bench",
    }


def _shared(environments: Sequence[Environment], field: str) -> object:
    """A field of the environment when all have the same value; otherwise None."""
    values = {getattr(environment, field) for environment in environments}
    return values.pop() if len(values) == 1 else None


def _printable(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _short(cell: Cell) -> Cell:
    return truncate(printable(cell), LONGEST_PART) if isinstance(cell, str) else cell
