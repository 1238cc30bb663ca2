"""The values of runs that a tag of a page names, each run counted as the project's tables count."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

from bench.analysis.benchmarks import group_runs, measured_values, pool_single_runs
from bench.analysis.columns import Column, Role, Run, column, run_column_names
from bench.analysis.filters import parse_filter
from bench.analysis.headings import is_text
from bench.analysis.metrics import attempt_of, completed, reached_epoch
from bench.records.schema import RunRecord
from bench.stats.attempts import Attempt
from bench.stats.summary import MISSED
from bench.stats.sums import exact_sum
from bench.text import printable
from bench.verify.figure_requests import Quantity, Series
from mnist_cnn.errors import UsageError, near_match

_SPENT: dict[str, Callable[[RunRecord], float]] = {
    "time_to_target_seconds": lambda record: attempt_of(record).seconds,
    "samples_to_target": lambda record: record.samples_seen,
}
"""Columns of what a run spends for the target, and what it spent where it missed it."""


def select(runs: Sequence[Run], where: str | None) -> list[Run]:
    """The runs for which a condition holds.

    Raises:
        UsageError: it is no condition, or it holds for none.
    """
    if where is None:
        return list(runs)
    try:
        condition = parse_filter(where, run_column_names())
    except UsageError as error:
        raise UsageError(str(error).replace("--filter", "where", 1)) from error
    used = [column(name) for name in condition.columns]
    chosen = [run for run in runs if condition.holds({each.name: each.cell(run) for each in used})]
    if not chosen:
        raise UsageError(f"where {printable(where)} holds for none of {len(runs)} runs")
    return chosen


def values_of(quantity: Quantity, runs: Sequence[Run]) -> list[float]:
    """A value a run, as tables count them: a miss is infinite, and no seed's accuracy is twice.

    Raises:
        UsageError: the quantity names something that does not exist.
    """
    return [quantity.scale * value for value in _unscaled(quantity, runs)]


def _unscaled(quantity: Quantity, runs: Sequence[Run]) -> Iterator[float]:
    series, divisor = quantity.series, quantity.divisor
    if divisor is not None and divisor.where is not None:
        yield from _paired(series, divisor, runs)
        return
    chosen = select(runs, series.where)
    columns = number_columns(series)
    if divisor is None and len(columns) == 1 and columns[0].role is Role.MEASURED:
        for benchmark in pool_single_runs(group_runs(chosen)):
            yield from measured_values(columns[0], benchmark.records)
        return
    for record in completed([record for _, record in chosen]):
        value = _value(series, record)
        by = 1.0 if divisor is None else _value(divisor, record)
        if value is not None and by:
            yield value / by


def attempts_of(quantity: Quantity, runs: Sequence[Run]) -> list[Attempt]:
    """What each completed run spent, and whether it reached the target.

    Raises:
        UsageError: the quantity is not what a run spends for the target.
    """
    series, divisor = quantity.series, quantity.divisor
    if series.name not in _SPENT:
        known = " or ".join(_SPENT)
        raise UsageError(f"a success costs {known}, not {series.name}")
    if divisor is not None:
        raise UsageError("what a success costs can be divided by a number only")
    attempts = []
    for record in completed([record for _, record in select(runs, series.where)]):
        value = _value(series, record)
        reached = reached_epoch(record) is not None and value is not None
        spent = value if reached and value is not None else _SPENT[series.name](record)
        attempts.append(Attempt(spent * quantity.scale, reached))
    return attempts


def number_columns(series: Series) -> list[Column]:
    """The columns of a series.

    Raises:
        UsageError: one does not exist, or holds text.
    """
    names = run_column_names()
    for name in series.columns:
        if name not in names:
            raise UsageError(f"there is no column {name!r}{near_match(name, names)}")
        if is_text(name):
            raise UsageError(f"{name} is a text, not a number")
    return [column(name) for name in series.columns]


def _paired(first: Series, second: Series, runs: Sequence[Run]) -> Iterator[float]:
    """Ratios of two series, a seed each.

    Raises:
        UsageError: a series has a seed twice, or they have not the same seeds.
    """
    above, below = (_by_seed(series, runs) for series in (first, second))
    if above.keys() != below.keys():
        raise UsageError("the two series of a ratio have not the same seeds")
    yield from (above[seed] / below[seed] for seed in sorted(above))


def _by_seed(series: Series, runs: Sequence[Run]) -> dict[int, float]:
    values: dict[int, float] = {}
    for record in completed([record for _, record in select(runs, series.where)]):
        value = _value(series, record)
        if record.seed in values:
            raise UsageError(f"a series of a ratio has seed {record.seed} twice")
        if not value or not math.isfinite(value):
            raise UsageError(f"a series of a ratio has no {series.name} of seed {record.seed}")
        values[record.seed] = value
    return values


def _value(series: Series, record: RunRecord) -> float | None:
    """A run's value: infinite where it missed the target, None where it was not measured."""
    values = []
    for measured in number_columns(series):
        value = measured.cell((None, record))
        if isinstance(value, int | float):
            values.append(float(value))
        elif measured.missing_is_missed:
            values.append(MISSED)
        else:
            return None
    return exact_sum(values)
