"""The protocol's versions: which evaluation decides, and which records compare."""

from __future__ import annotations

from typing import Any

import pytest

from bench.analysis import metrics
from bench.analysis.benchmarks import group_runs
from bench.analysis.differences import INCOMPARABLE, find_differences
from bench.analysis.protocol_rules import comparable_protocol
from bench.analysis.result_warnings import ResultWarning, run_warnings
from bench.analysis.rows import benchmark_row
from bench.analysis.share_comparison import ReachedCounts
from bench.records.protocol import KNOWN_PROTOCOLS, PROTOCOL_VERSION
from bench.records.schema import RunRecord, Status
from bench.report.formats.measures import measures_of
from bench.report.progress import run_outcome
from bench.verify.consistency import find_contradictions
from tests.factories import make_record

CROSSED = (0.99, 0.995, 0.993, 0.994)
"""Accuracies that cross the target in epoch 2, fall below it, and are at it in the end."""

ENDED_BELOW = (0.99, 0.995, 0.993, 0.993)
"""The same crossing, without the target in the end."""


def record_of(version: int, **overrides: Any) -> RunRecord:
    """A run of `fast` by a version of the protocol: 0.4 s, then 7 and 1 s an epoch."""
    protocol = {"version": version, **overrides.pop("protocol", {})}
    return make_record(train_seconds=7.0, eval_seconds=1.0, protocol=protocol, **overrides)


@pytest.mark.parametrize(
    ("version", "division", "accuracies", "epoch"),
    [
        (2, "open", CROSSED, 4),
        (2, "open", CROSSED[:3], None),
        (2, "open", CROSSED[:2], 2),
        (2, "open", (0.99,), None),
        (2, "open", (), None),
        (2, "closed", CROSSED, 2),
        (2, "closed", CROSSED[:3], 2),
        (1, "open", CROSSED, 2),
        (1, "open", CROSSED[:3], 2),
    ],
)
def test_which_evaluation_reaches_the_target(
    version: int, division: str, accuracies: tuple[float, ...], epoch: int | None
) -> None:
    record = record_of(version, division=division, accuracies=accuracies)
    assert metrics.reached_epoch(record) == epoch
    end = None if epoch is None else 0.4 + 8.0 * epoch
    assert metrics.time_to_target_seconds(record) == pytest.approx(end)
    assert metrics.train_time_to_target_seconds(record) == (epoch and pytest.approx(7.0 * epoch))
    assert metrics.samples_to_target(record) == (epoch and 60_000 * epoch)
    assert metrics.attempt_of(record).reached == (epoch is not None)
    assert (ResultWarning.MISSED_TARGET in run_warnings(record)) == (epoch is None)
    assert group_runs([(None, record)])[0].reached == (epoch is not None)
    crossing = 0.4 + 8.0 * 2 if len(accuracies) > 1 else None
    assert metrics.first_crossing_seconds(record) == pytest.approx(crossing)


def test_a_crossing_alone_is_a_miss_wherever_runs_are_counted() -> None:
    """In the row of a benchmark, in other programs' measures and in a comparison's share."""
    runs = [
        record_of(2, accuracies=accuracies, seed=seed, run_index=seed + 1, benchmark_id="b" * 32)
        for seed, accuracies in enumerate([CROSSED, ENDED_BELOW, ENDED_BELOW, CROSSED])
    ]
    (benchmark,) = group_runs((None, run) for run in runs)
    row = benchmark_row(benchmark)
    assert (row["runs"], row["runs_reached"]) == (4, 2)
    low, high = row["runs_reached_share_low"], row["runs_reached_share_high"]
    assert isinstance(low, float)
    assert isinstance(high, float)
    assert low < 0.5 < high < 1
    (share,) = [m for m in measures_of(benchmark) if m.name == "runs_reached_share"]
    assert share.value == 0.5
    counts = ReachedCounts.of(runs, runs)
    assert (counts.base, counts.base_runs) == (2, 4)


def test_verify_computes_the_judged_evaluation_again() -> None:
    for version in KNOWN_PROTOCOLS:
        for accuracies in (CROSSED, CROSSED[:3], (0.9,)):
            found = "\n".join(find_contradictions(record_of(version, accuracies=accuracies)))
            assert "target" not in found


def test_a_run_that_ended_early_was_never_judged() -> None:
    record = record_of(2, accuracies=CROSSED[:2], status=Status.INTERRUPTED, reason="interrupted")
    assert metrics.reached_epoch(record) is None
    assert metrics.first_crossing_seconds(record) == pytest.approx(16.4)


def test_a_run_that_only_crossed_the_target_says_so() -> None:
    crossed = record_of(2, accuracies=CROSSED[:3])
    assert run_outcome(crossed).startswith("missed 99.4 %, first crossing after 16.4 s, 99.30 %")
    stopped = record_of(2, accuracies=CROSSED[:2], protocol={"stop_at_target": True})
    assert ResultWarning.STOPPED_AT_TARGET in run_warnings(stopped)
    assert "no result of the open division" in ResultWarning.STOPPED_AT_TARGET


ONCE: dict[str, Any] = {"accuracies": (0.995,)}
TWO: dict[str, Any] = {"setup": {"processes": 2}}
WHOLE: dict[str, Any] = {"recipe": {"norm_batch_size": 0}}


@pytest.mark.parametrize(
    ("overrides", "same"),
    [
        ({"division": "closed", **WHOLE}, True),
        ({"division": "closed", **WHOLE, **TWO}, False),
        ({"division": "closed", **TWO}, True),
        ({**ONCE}, True),
        ({**ONCE, **TWO}, True),
        ({**ONCE, **TWO, **WHOLE}, False),
        ({"accuracies": CROSSED}, False),
        ({**ONCE, "recipe": {"evaluate_from_epoch": None}}, False),
    ],
)
def test_versions_compare_where_nothing_that_changed_concerns_the_runs(
    overrides: dict[str, Any], same: bool
) -> None:
    old, new = (record_of(version, **overrides) for version in KNOWN_PROTOCOLS)
    assert (comparable_protocol(old) == comparable_protocol(new)) == same
    expected = [] if same else ["protocol version differs: 1 (base), 2 (new)"]
    assert find_differences(INCOMPARABLE, [old], [new]) == expected
    assert find_differences(INCOMPARABLE, [new], [new]) == []


def test_one_process_compares_with_two_of_the_same_version_but_links_no_versions() -> None:
    alone, old, new = (
        record_of(version, division="closed", **WHOLE, setup={"processes": processes})
        for version, processes in ((1, 1), (1, 2), (2, 2))
    )
    assert find_differences(INCOMPARABLE, [alone], [old]) == []
    assert find_differences(INCOMPARABLE, [alone], [new]) == []
    assert find_differences(INCOMPARABLE, [alone, old], [new]) == [
        "protocol version differs: 1 or 2 (base), 2 (new)"
    ]


def test_a_version_that_is_not_known_compares_with_itself_alone() -> None:
    unknown = record_of(PROTOCOL_VERSION + 1, **ONCE)
    assert comparable_protocol(unknown) == frozenset({PROTOCOL_VERSION + 1})
