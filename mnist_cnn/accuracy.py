"""Parses an accuracy as people write one. Standard library only."""

from __future__ import annotations

import math
from decimal import Decimal

from mnist_cnn.errors import UsageError


def parse_accuracy(text: str) -> float:
    """An accuracy as a fraction, from ``"99.4"`` (percent), ``"99.4%"`` or ``"0.994"``.

    A number of 1 or less is a fraction, above 1 a percentage.

    Raises:
        UsageError: it is not a number, or is not between 0 and 100 %.
    """
    percent = text.strip().endswith("%")
    try:
        value = Decimal(text.strip().removesuffix("%"))
        # In decimal: 99.4 / 100 as floats is above 0.994, so that 9,940 of 10,000 would miss it.
        fraction = float(value / 100 if percent or value > 1 else value)
    except ArithmeticError:  # no number at all, or NaN, which does not compare
        fraction = math.nan
    if not 0 < fraction < 1:
        raise UsageError(
            f"target accuracy must be a percentage such as 99.4 or a fraction such as 0.994, "
            f"not {text!r}"
        )
    return fraction
