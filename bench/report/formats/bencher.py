"""Benchmarks as Bencher Metric Format (BMF) JSON, for `bencher run --adapter json`.

One object per benchmark holds one object per measure: its value and, where known, the ends of its
95 % interval (bencher.dev/docs/reference/bencher-metric-format).
"""

from __future__ import annotations

from collections.abc import Sequence

from bench.analysis.benchmarks import Benchmark
from bench.report.formats.json import encode
from bench.report.formats.measures import Measure, measures_of
from bench.report.formats.tracked import Document, newest_by_name, without_time_to_target


def to_bmf(benchmarks: Sequence[Benchmark]) -> Document:
    """Every measured column of the newest benchmark of each name.

    A measure's name is its column's name with hyphens, because Bencher would replace underscores.
    """
    newest, left_out = newest_by_name(benchmarks)
    document = {
        name: {
            measure.name.replace("_", "-"): _metric(measure) for measure in measures_of(benchmark)
        }
        for name, benchmark in newest.items()
    }
    untimed = without_time_to_target(list(newest.values()))
    return Document(encode(document), (*left_out, *untimed))


def _metric(measure: Measure) -> dict[str, float]:
    """A measure without the ends that are not known: the format has no null."""
    values = {"value": measure.value, "lower_value": measure.low, "upper_value": measure.high}
    return {name: value for name, value in values.items() if value is not None}
