"""Benchmarks for github-action-benchmark: an array of points, all smaller or all bigger is better.

The action accepts one direction per step (`tool: customSmallerIsBetter` or
`customBiggerIsBetter`). Times and memory go into one file, accuracy and throughput into another.
It compares ratios, which hardly change for accuracy: use
`mnist-bench compare --fail-if-less-accurate` as the gate for accuracy.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from bench.analysis.benchmarks import Benchmark
from bench.analysis.units import Unit
from bench.report.formats.json import encode
from bench.report.formats.measures import LARGER_IS_BETTER, Measure, measures_of
from bench.report.formats.tracked import (
    Document,
    newest_by_name,
    remarks,
    without_time_to_target,
)
from bench.text import Rounding, rounded

UNITS = {
    Unit.SECONDS: "s",
    Unit.BYTES: "bytes",
    Unit.RATE: "images/s",
    Unit.FRACTION: "fraction",
    Unit.COUNT: "count",
    Unit.JOULES: "J",
}


def to_github_action_smaller(benchmarks: Sequence[Benchmark]) -> Document:
    """Times and memory, for `customSmallerIsBetter`."""
    newest, left_out = newest_by_name(benchmarks)
    untimed = without_time_to_target(list(newest.values()))
    return Document(_entries(newest, larger_is_better=False), (*left_out, *untimed))


def to_github_action_bigger(benchmarks: Sequence[Benchmark]) -> Document:
    """Accuracy, throughput and the share of runs that reached it, for `customBiggerIsBetter`."""
    newest, left_out = newest_by_name(benchmarks)
    return Document(_entries(newest, larger_is_better=True), tuple(left_out))


def _entries(benchmarks: Mapping[str, Benchmark], larger_is_better: bool) -> str:
    return encode(
        [
            _entry(name, measure, remarks(benchmark))
            for name, benchmark in benchmarks.items()
            for measure in measures_of(benchmark)
            if (measure.unit in LARGER_IS_BETTER) is larger_is_better
        ]
    )


def _entry(name: str, measure: Measure, remarks: Sequence[str]) -> dict[str, str | float]:
    entry: dict[str, str | float] = {
        "name": f"{name}: {measure.name}",
        "unit": UNITS[measure.unit],
        "value": measure.value,
    }
    if measure.low is not None and measure.high is not None:
        half_width = (measure.high - measure.low) / 2
        entry["range"] = (
            f"± {_digits(half_width, Rounding.UP)}"
            if measure.symmetric
            else f"{_digits(measure.low, Rounding.DOWN)} to {_digits(measure.high, Rounding.UP)}"
        )
    return entry | {"extra": "\n".join(remarks)}


def _digits(value: float, rounding: Rounding) -> str:
    """The value with six significant digits, an end of an interval rounded outwards."""
    decimals = 5 - math.floor(math.log10(abs(value))) if value else 0
    return f"{rounded(value, decimals, rounding):.6g}"
