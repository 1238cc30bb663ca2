"""Benchmarks as Bencher Metric Format (BMF) JSON, for `bencher run --adapter json`.

An object a benchmark, in it an object a measure: its value and, where known, the ends of its 95 %
interval (bencher.dev/docs/reference/bencher-metric-format).
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.benchmarks import Benchmark
from bench.report.formats.measures import Document, Measure, measures_of, newest_by_name, untimed


def to_bmf(benchmarks: Sequence[Benchmark]) -> Document:
    """Every measured column of the newest benchmark of each name.

    Measures are the columns' names, with hyphens, for that is how Bencher would spell them.
    """
    found, left_out = newest_by_name(benchmarks)
    values = {
        name: {point.measure.replace("_", "-"): _metric(point) for point in measures_of(benchmark)}
        for name, benchmark in found.items()
    }
    text = json.dumps(values, indent=2, allow_nan=False) + "\n"
    return Document(text, (*left_out, *untimed(list(found.values()))))


def _metric(point: Measure) -> dict[str, float]:
    """Without the ends that are not known: the format has no null."""
    ends = {"value": point.value, "lower_value": point.low, "upper_value": point.high}
    return {name: value for name, value in ends.items() if value is not None}
