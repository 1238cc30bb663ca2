"""Recomputes from records what the tags of a page name."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from statistics import stdev

from bench.analysis.benchmarks import Benchmark
from bench.analysis.columns import Row, Run, benchmark_column_names
from bench.analysis.headings import is_text, unit_of
from bench.analysis.rows import benchmark_row
from bench.analysis.units import Unit
from bench.records import store
from bench.stats.attempts import Attempt, seconds_per_success_interval
from bench.stats.intervals import Estimate, product
from bench.stats.student_t import t_above
from bench.stats.summary import summarize
from bench.text import printable
from bench.verify.figure_requests import SKIPPED, Figures, Group, Product
from bench.verify.quantity_values import attempts_of, number_columns, select, values_of
from bench.verify.shown_numbers import End
from mnist_cnn.errors import UsageError, near_match

_SUMMARIES = ("count", "mean", "low", "high", "median", "median_low", "median_high", "olympic")
"""Fields of `MetricSummary`."""
_SUCCESSES = ("expected", "expected_low", "expected_high")
STATISTICS = (*_SUMMARIES, *_SUCCESSES, "lower_bound", "sd", "min", "max")
"""Names that stand before ``of``: those of a summary; what all runs together spent for each that
reached the target, with its interval; the one-sided 95 % lower bound of the mean; the standard
deviation; the ends of the range."""
PRODUCT_PARTS = ("value", "low", "high")
_ONE_SIDED = 0.05


@dataclass(frozen=True, slots=True)
class Figure:
    """One recomputed number."""

    name: str
    """As messages name it: ``mean of final_accuracy``."""
    value: float
    """In the unit of records."""
    group: int
    """Numbers of one group are of one quantity and have one unit."""
    end: End = End.NONE
    """Which end of an interval it is."""
    has_unit: bool = True
    """Whether it has the unit that is written beside it; a count has none."""
    is_share: bool = False
    """Whether it is a fraction, which pages also write in percent without a sign."""


@dataclass(slots=True)
class RecordReader:
    """The records that tags name, each folder read once."""

    root: Path
    """The folder that places are relative to."""
    _read: dict[str, tuple[Run, ...]] = field(default_factory=dict)

    def runs(self, places: Sequence[str], where: str | None) -> list[Run]:
        """The runs in files and folders for which a condition holds.

        Raises:
            UsageError: a place has no records, or the condition is none or leaves no run.
        """
        runs = {run[1].run_id: run for place in places for run in self._runs_in(place)}
        return select(list(runs.values()), where)

    def _runs_in(self, place: str) -> tuple[Run, ...]:
        if place not in self._read:
            path = self.root / place
            try:
                is_there = path.exists()
            except OSError:  # a name that is too long for any file
                is_there = False
            if not is_there:
                raise UsageError(f"there is no {printable(place)} in the project's folder")
            contents = store.read_records([path])
            if not contents.records:
                raise UsageError(f"no run records in {printable(place)}")
            self._read[place] = tuple(contents.records)
        return self._read[place]


def recompute(request: Figures, reader: RecordReader) -> list[Figure | None]:
    """The value of each name of a tag, in order; None for those that are skipped.

    Raises:
        UsageError: the tag names something that does not exist or has no value.
    """
    runs = reader.runs(request.places, request.where)
    groups = [_GroupValues(number, group, runs) for number, group in enumerate(request.groups)]
    return [
        None if name == SKIPPED else values.figure(name)
        for values in groups
        for name in values.group.names
    ]


def estimate(request: Figures, reader: RecordReader) -> Estimate:
    """The value of a tag's first name with its interval, for use by later tags.

    Raises:
        UsageError: that name has no interval.
    """
    values = _GroupValues(0, request.groups[0], reader.runs(request.places, request.where))
    name = values.group.names[0]
    low, high = ("low", "high") if name == "mean" else (f"{name}_low", f"{name}_high")
    return Estimate(*[values.figure(part).value for part in (name, low, high)])


def recompute_product(request: Product, known: dict[str, Estimate]) -> list[Figure | None]:
    """The value of each name of a product, in order; None for those that are skipped.

    Args:
        request: the product.
        known: values of the page's earlier tags that have a name.

    Raises:
        UsageError: it uses a name that no tag before it has, or has no interval.
    """
    for name in (*request.factors, *request.divisors):
        if name not in known:
            raise UsageError(f"no tag before this one is called {name!r}{near_match(name, known)}")
    result = product(
        [known[name] for name in request.factors], [known[name] for name in request.divisors]
    )
    figures: list[Figure | None] = []
    for name in request.names:
        if name == SKIPPED:
            figures.append(None)
            continue
        _check_name(name, PRODUCT_PARTS, "part of a product")
        value = getattr(result, name)
        if value is None:
            raise UsageError(f"the product has no {name}: one of its values has no interval")
        figures.append(Figure(f"{name} of the product", value, 0, _end_of(name)))
    return figures


@dataclass(frozen=True)
class _GroupValues:
    """The runs' values that the names of a group are of, computed once for all of them."""

    number: int
    """The group's place in its tag."""
    group: Group
    runs: Sequence[Run]

    def figure(self, name: str) -> Figure:
        """What a name stands for.

        Raises:
            UsageError: there is no such name, or it has no value.
        """
        if self.group.quantity is None:
            return self._benchmark_figure(name)
        _check_name(name, STATISTICS, "statistic")
        quantity = self.group.quantity
        columns = number_columns(quantity.series)
        if name in _SUCCESSES:
            value = _of_successes(name, self._attempts)
        else:
            value = _statistic(name, self._values)
        full_name = f"{name} of {quantity.series.name}"
        if value is None or not math.isfinite(value):
            raise UsageError(f"{full_name} has no value: too few runs, or one missed the target")
        return Figure(
            full_name,
            value,
            self.number,
            _end_of(name),
            has_unit=name != "count",
            is_share=quantity.divisor is None
            and quantity.scale == 1
            and columns[0].unit is Unit.FRACTION,
        )

    def _benchmark_figure(self, name: str) -> Figure:
        """A column of the benchmark that these runs are together."""
        _check_name(name, benchmark_column_names(), "column of a benchmark")
        value = self._benchmark[name]
        if is_text(name) or isinstance(value, str):
            raise UsageError(f"{name} is a text, not a number")
        if value is None:
            raise UsageError(f"{name} has no value: too few runs, or too many missed the target")
        unit = unit_of(name)
        return Figure(
            name,
            float(value),
            self.number,
            _end_of(name),
            has_unit=unit is not Unit.COUNT,
            is_share=unit is Unit.FRACTION,
        )

    @cached_property
    def _values(self) -> list[float]:
        assert self.group.quantity is not None
        return values_of(self.group.quantity, self.runs)

    @cached_property
    def _attempts(self) -> list[Attempt]:
        assert self.group.quantity is not None
        return attempts_of(self.group.quantity, self.runs)

    @cached_property
    def _benchmark(self) -> Row:
        return benchmark_row(Benchmark(tuple(self.runs)))


def _end_of(name: str) -> End:
    if name.endswith(("low", "lower_bound")):
        return End.LOWER
    return End.UPPER if name.endswith("high") else End.NONE


def _check_name(name: str, known: Sequence[str], what: str) -> None:
    if name not in known:
        raise UsageError(f"there is no {what} {name!r}{near_match(name, known)}")


def _statistic(name: str, values: Sequence[float]) -> float | None:
    if name in _SUMMARIES:
        value = getattr(summarize(values), name)
        return None if value is None else float(value)
    if not values:
        return None
    if name in ("min", "max"):
        return min(values) if name == "min" else max(values)
    if len(values) < 2 or not all(map(math.isfinite, values)):
        return None
    deviation = stdev(values)
    if name == "sd":
        return deviation
    mean = summarize(values).mean
    half = t_above(len(values) - 1, _ONE_SIDED) * deviation / math.sqrt(len(values))
    return None if mean is None else mean - half


def _of_successes(name: str, attempts: Sequence[Attempt]) -> float | None:
    """What completed runs spent for each that reached the target, or an end of its interval."""
    cost = seconds_per_success_interval(attempts) if attempts else None
    if cost is None:
        return None
    return {"expected": cost.value, "expected_low": cost.low, "expected_high": cost.high}[name]
