"""`run --runs auto`: enough runs, and never more than asked for."""

from __future__ import annotations

import math
import random
from statistics import fmean, stdev

import pytest
from hypothesis import given, strategies as st

from bench.cli.options import parse_duration, parse_share
from bench.records.protocol import BenchmarkProtocol
from bench.stats.stopping import PILOT, precise_enough, runs_needed_for
from bench.stats.student_t import t_quantile
from mnist_cnn.errors import UsageError

SIMULATIONS = 300


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.02, 0.06, 0.12])
def test_the_interval_is_as_narrow_as_wanted_and_holds_the_truth(noise: float) -> None:
    """Stein's promise: the mean is within the half-width of the truth 95 times in 100."""
    generator, wanted = random.Random(f"{noise}"), 0.05
    within = 0
    for _ in range(SIMULATIONS):
        logs: list[float] = []
        while not precise_enough(wanted, None, [math.exp(value) for value in logs], []):
            logs.append(generator.gauss(0, noise))
        within += abs(fmean(logs)) <= math.log1p(wanted)
    assert within / SIMULATIONS > 0.92


@given(st.lists(st.floats(0.5, 2), min_size=PILOT, max_size=12), st.floats(0.01, 0.5))
def test_the_number_follows_from_the_first_runs_alone(values: list[float], wanted: float) -> None:
    count = runs_needed_for(wanted, values)
    assert count == runs_needed_for(wanted, values[:PILOT]) >= PILOT
    deviation = stdev(math.log(value) for value in values[:PILOT])
    half = t_quantile(PILOT - 1, 0.975) * deviation / math.sqrt(count)
    assert half <= math.log1p(wanted) * (1 + 1e-9)


def test_the_budget_is_kept() -> None:
    assert not precise_enough(0.05, 60.0, [10.0, 20.0], [10.0, 20.0])  # 30 s, the next at most 20
    assert precise_enough(0.05, 60.0, [10.0, 20.0, 15.0], [10.0, 20.0, 15.0])
    assert not precise_enough(0.05, None, [], [])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90", 90.0), ("90s", 90.0), ("10m", 600.0), ("10 min", 600.0), ("1.5h", 5400.0)],
)
def test_durations(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "soon", "10 d", "nan", "m"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--budget takes a time"):
        parse_duration(text)


@pytest.mark.parametrize(("text", "share"), [("5%", 0.05), ("5 %", 0.05), ("0.05", 0.05)])
def test_shares(text: str, share: float) -> None:
    assert parse_share(text, "--half-width") == pytest.approx(share)
    with pytest.raises(UsageError, match="--half-width takes a number"):
        parse_share("wide", "--half-width")


def test_what_makes_no_protocol_is_refused() -> None:
    with pytest.raises(UsageError, match="--half-width must lie"):
        BenchmarkProtocol(half_width=1.5)
    with pytest.raises(UsageError, match="--budget must be longer"):
        BenchmarkProtocol(half_width=0.05, budget_seconds=0.0)
