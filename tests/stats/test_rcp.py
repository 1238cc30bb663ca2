"""MLPerf's arithmetic is MLPerf's: held to `mlperf_logging` on all the data that it comes with."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import mlperf_logging
import pytest
from hypothesis import given, strategies as st
from mlperf_logging.rcp_checker import rcp_checker
from mlperf_logging.result_summarizer import result_summarizer

from bench.stats.rcp import epochs_allowed, olympic_mean

DATA = Path(mlperf_logging.__file__).parent / "rcp_checker"


def points() -> list[tuple[str, str, str]]:
    """Usage, ruleset and benchmark of every file of reference points that the checker knows."""
    found = []
    for path in sorted(DATA.glob("*_*/rcps_*.json")):
        usage, ruleset = path.parent.name.split("_", 1)
        benchmark = path.stem.removeprefix("rcps_")
        if benchmark in rcp_checker.submission_runs.get(usage, {}):
            found.append((usage, ruleset, benchmark))
    return found


def test_there_is_data_to_compare_with() -> None:
    assert len(points()) > 50


@pytest.mark.slow
def test_means_and_fewest_epochs_are_mlperfs_on_its_own_data() -> None:
    compared = 0
    for usage, ruleset, benchmark in points():
        theirs = rcp_checker.RCP_Checker(usage, ruleset, benchmark, verbose=False)
        dropped = 4 if benchmark == "unet3d" else 1
        for record in theirs.rcp_data.values():
            epochs: list[float] = record["Epochs to converge"]
            ours = epochs_allowed(epochs, theirs.submission_runs, dropped)
            expected: dict[str, Any] = record
            assert olympic_mean(epochs, dropped) == pytest.approx(expected["RCP Mean"])
            if benchmark == "unet3d" or ours is None:
                # The checker drops two runs of a submission there, not the eight it drops later.
                continue
            assert ours.fewest == pytest.approx(expected["Min Epochs"], rel=1e-3, abs=1e-3)
            assert ours.fewest == pytest.approx(max(0.0, 2 * ours.mean - ours.most))
            compared += 1
    assert compared > 100


@given(st.lists(st.floats(1, 1e6), min_size=1, max_size=12), st.integers(0, 2))
def test_olympic_means_are_the_result_summarizers(values: list[float], missed: int) -> None:
    """It is told how many scores were dropped already: those that missed."""
    ours = olympic_mean([*values, *[math.inf] * missed])
    if missed > 1:
        assert ours is None
        return
    theirs = result_summarizer._compute_olympic_average(list(values), missed, 1)
    assert ours == (None if theirs is None else pytest.approx(theirs))


def test_too_few_say_nothing() -> None:
    assert olympic_mean([3.0, 4.0]) is None
    assert epochs_allowed([3.0, 4.0, 5.0], 3) is None
    assert epochs_allowed([3.0, 4.0, 5.0, 6.0], 3) is not None


def test_a_reference_that_never_varies_allows_itself_alone() -> None:
    found = epochs_allowed([7.0] * 6, 5)
    assert found is not None
    assert (found.fewest, found.mean, found.most) == (7.0, 7.0, 7.0)
