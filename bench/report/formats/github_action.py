"""Benchmarks for github-action-benchmark: an array of points, all smaller or all bigger is better.

The action takes one direction a step (`tool: customSmallerIsBetter` or `customBiggerIsBetter`), so
times and memory go into one file, accuracy and throughput into another. It compares by ratio, for
which accuracy hardly moves: `mnist-bench compare --fail-if-less-accurate` is the gate for that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.benchmarks import Benchmark
from bench.analysis.units import Unit
from bench.report.formats.measures import (
    LARGER_IS_BETTER,
    Document,
    Measure,
    measures_of,
    newest_by_name,
    remarks,
    untimed,
)

_UNITS = {
    Unit.SECONDS: "s",
    Unit.BYTES: "bytes",
    Unit.RATE: "images/s",
    Unit.FRACTION: "fraction",
    Unit.COUNT: "count",
}


def to_github_action_smaller(benchmarks: Sequence[Benchmark]) -> Document:
    """Times and memory, for `customSmallerIsBetter`."""
    found, left_out = newest_by_name(benchmarks)
    text = _entries(found, larger_is_better=False)
    return Document(text, (*left_out, *untimed(list(found.values()))))


def to_github_action_bigger(benchmarks: Sequence[Benchmark]) -> Document:
    """Accuracy, throughput and the share of runs that reached it, for `customBiggerIsBetter`."""
    found, left_out = newest_by_name(benchmarks)
    return Document(_entries(found, larger_is_better=True), tuple(left_out))


def _entries(found: dict[str, Benchmark], larger_is_better: bool) -> str:
    entries = [
        _entry(name, point, remarks(benchmark))
        for name, benchmark in found.items()
        for point in measures_of(benchmark)
        if (point.unit in LARGER_IS_BETTER) is larger_is_better
    ]
    return json.dumps(entries, indent=2, allow_nan=False) + "\n"


def _entry(name: str, point: Measure, remarks: Sequence[str]) -> dict[str, str | float]:
    entry: dict[str, str | float] = {
        "name": f"{name}: {point.measure}",
        "unit": _UNITS[point.unit],
        "value": point.value,
    }
    if point.low is not None and point.high is not None:
        half = (point.high - point.low) / 2
        entry["range"] = (
            f"± {half:.6g}" if point.symmetric else f"{point.low:.6g} to {point.high:.6g}"
        )
    return entry | {"extra": "\n".join(remarks)}
