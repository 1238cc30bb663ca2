"""The cost of reaching the target, for a report that was given the machine's price per hour.

A price is no measurement and is in no record.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from unicodedata import category

from bench.analysis.columns import Row
from mnist_cnn.errors import UsageError

_PRICE = re.compile(r"([^\d\s.]*+)\s*+(\d++(?:\.\d*+)?|\.\d++)\s*+([^\d\s.]*+)", re.ASCII)
_HOUR = 3600.0
_TIME, _COST = "time_to_target_seconds", "cost_to_target"


@dataclass(frozen=True, slots=True)
class Price:
    """The price of an hour of the machine."""

    per_hour: float
    currency: str | None
    """The currency as the user wrote it; None where there was only a number."""


def parse_price(text: str) -> Price:
    """Read ``2.49``, ``2.49 EUR`` or ``$2.49``.

    Raises:
        UsageError: the text is none of these.
    """
    matched = _PRICE.fullmatch(text.strip())
    before, number, after = matched.groups() if matched else ("", "nan", "")
    currency = before + after
    if (
        not 0 < float(number) < math.inf
        or (before and after)
        or not all(letter.isalpha() or category(letter) == "Sc" for letter in currency)
    ):
        raise UsageError(
            f"--price-per-hour takes a number above 0, as 2.49 or '2.49 EUR', not {text!r}"
        )
    return Price(float(number), currency or None)


def add_costs(
    rows: Sequence[Row], columns: Sequence[str], price: Price
) -> tuple[list[Row], list[str]]:
    """Add to rows what each time to the target costs, and the price.

    Args:
        rows: rows of runs or of benchmarks.
        columns: the rows' columns, in order.
        price: the price of an hour.

    Returns:
        The rows and their columns, with a column of costs for each column of times to the target.
    """
    costs = {name: _COST + name.removeprefix(_TIME) for name in columns if name.startswith(_TIME)}
    added = ["price_per_hour", "currency", *costs.values()]
    priced_rows = [
        row
        | {"price_per_hour": price.per_hour, "currency": price.currency}
        | {cost: _cost(row[time], price) for time, cost in costs.items()}
        for row in rows
    ]
    return priced_rows, [*columns, *added]


def _cost(seconds: object, price: Price) -> float | None:
    """The price times the hours; None where there is no time, or the cost is infinite."""
    if not isinstance(seconds, int | float):
        return None
    cost = seconds / _HOUR * price.per_hour
    return cost if math.isfinite(cost) else None
