"""Student's t against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given, settings, strategies as st
from scipy.special import stdtrit

from bench.stats.student_t import t_above, t_quantile

SHARES = st.floats(1e-9, 1 - 1e-9).filter(lambda share: abs(share - 0.5) > 1e-6)


@settings(max_examples=500)
@given(st.one_of(st.integers(1, 200), st.floats(1, 1e5)), SHARES)
def test_it_is_scipys(degrees: float, probability: float) -> None:
    assert t_quantile(degrees, probability) == pytest.approx(
        float(stdtrit(degrees, probability)), rel=1e-8, abs=1e-11
    )


@pytest.mark.parametrize("degrees", [1, 2, 2.5, 9, 19, 39, 100.7, 5000])
@pytest.mark.parametrize("tail", [0.05, 0.025, 0.005, 0.0005])
def test_where_results_ask_for_it_ten_digits_agree(degrees: float, tail: float) -> None:
    quantile = t_quantile(degrees, 1 - tail)
    assert quantile == pytest.approx(float(stdtrit(degrees, 1 - tail)), rel=6e-10)
    assert quantile == float(f"{quantile:.10g}")


def test_it_is_symmetric_about_0() -> None:
    assert t_quantile(7, 0.5) == 0
    assert t_quantile(7, 0.1) == -t_quantile(7, 0.9)
    assert t_above(19, 0.05) == t_quantile(19, 0.95)
