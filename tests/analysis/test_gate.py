"""The gate: how seldom it is wrong, and that no selection passes it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.analysis import load_evidence
from bench.analysis.case_comparison import compare_case
from bench.analysis.cases import match_cases
from bench.analysis.comparison import Metric, Verdict
from bench.analysis.gate import GateOutcome, Limits, judge, overall_outcome
from bench.analysis.run_sets import RunSet
from bench.cli import main
from bench.records.schema import RunRecord, Status
from bench.records.setup import Calibration
from tests.factories import ZEN_4, ZEN_5, busy, compared, noisy_runs, reached_nothing, saved


@pytest.mark.slow
@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.01, 0.15])
def test_the_gate_seldom_fires_where_nothing_has_changed(count: int, spread: float) -> None:
    """At most its 5 % to either side, on times alone; noise of 1 % and of 15 %."""
    fired = passed = 0
    runs = 60
    for seed in range(runs):
        outcome = _time_gate(
            noisy_runs(2 * seed, count, spread=spread),
            noisy_runs(2 * seed + 1, count, spread=spread),
            0.0,
        )
        fired += outcome is GateOutcome.REGRESSION
        passed += outcome is GateOutcome.PASS
    # Allowed: nothing. 5 % of 60, and what chance adds once in a thousand times.
    assert fired <= 9
    assert passed <= 9


@pytest.mark.slow
@pytest.mark.parametrize(("slower", "sees"), [(1.05, 0.0), (1.10, 0.9)])
def test_the_gate_sees_what_is_more_than_allowed(slower: float, sees: float) -> None:
    """1 % noise, ten runs a side, 5 % allowed: 5 % is not more, 10 % is nearly always seen."""
    runs = 30
    outcomes = [
        _time_gate(
            noisy_runs(2 * seed, 10),
            noisy_runs(2 * seed + 1, 10, slower=slower),
            0.05,
        )
        for seed in range(runs)
    ]
    rate = sum(outcome is GateOutcome.REGRESSION for outcome in outcomes) / runs
    assert rate >= sees
    if slower == 1.05:
        assert rate <= 0.2


def test_where_nothing_was_found_nothing_is_known() -> None:
    assert overall_outcome([]) is GateOutcome.UNCLEAR


@pytest.mark.slow
def test_where_runs_do_not_suffice_more_are_asked_for() -> None:
    """Also where they scatter so little that as many would mostly do: then one more."""
    numbers: list[int] = []
    for seed in range(40):
        base, new = noisy_runs(2 * seed, 4), noisy_runs(2 * seed + 1, 4, slower=1.03)
        matched = match_cases(RunSet("base", tuple(base)), RunSet("new", tuple(new)))
        for finding in judge(matched, [compare_case(matched.cases[0], 1)], Limits(0.05)):
            numbers += map(int, re.findall(r"about (\d+) runs per side would", finding.text))
    assert min(numbers) == 5


def test_the_nearer_a_change_is_to_the_limit_the_more_runs_are_asked_for() -> None:
    """A tenth of the distance takes a hundred times as many."""
    asked = []
    for slower in (1.04, 1.045):
        sides = noisy_runs(4, 4), noisy_runs(5, 4, slower=slower)
        matched = match_cases(
            *(RunSet(name, tuple(s)) for name, s in zip("ab", sides, strict=True))
        )
        findings = judge(matched, [compare_case(matched.cases[0], 1)], Limits(0.05))
        text = " ".join(finding.text for finding in findings)
        asked += re.findall(r"about (\d+) runs per side would", text)
    assert [int(number) for number in asked] == [
        pytest.approx(24, rel=0.3),
        pytest.approx(354, rel=0.3),
    ]


def _time_gate(base: list[RunRecord], new: list[RunRecord], allowed: float) -> GateOutcome:
    matched = match_cases(RunSet("base", tuple(base)), RunSet("new", tuple(new)))
    found = compare_case(matched.cases[0], 1)
    only = [line for line in found.lines if line.metric is Metric.SECONDS_PER_IMAGE]
    return overall_outcome(judge(matched, [replace(found, lines=tuple(only))], Limits(allowed)))


def test_other_work_on_the_machine_is_no_slower_program_and_hides_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    quiet, slow = noisy_runs(0), noisy_runs(1, slower=1.8)
    assert _time_gate(quiet, slow, 0.1) is GateOutcome.REGRESSION
    assert _time_gate(quiet, busy(slow, 8), 0.1) is GateOutcome.UNCLEAR
    assert _time_gate(quiet, busy(slow, 2), 0.1) is GateOutcome.REGRESSION, "a quarter of them"
    # Slower than what was slowed down is slower, and as fast as what was not is as fast.
    assert _time_gate(busy(quiet, 8), slow, 0.1) is GateOutcome.REGRESSION
    assert _time_gate(slow, quiet, 0.1) is GateOutcome.PASS
    assert _time_gate(slow, busy(quiet, 8), 0.1) is GateOutcome.PASS
    assert _time_gate(busy(slow, 8), quiet, 0.1) is GateOutcome.UNCLEAR
    assert gate_on(tmp_path, quiet, busy(slow, 8)) == 2
    line = "slower than allowed, but other work disturbed 8 of 8 new runs: measure it on a quiet"
    assert line in capsys.readouterr().out
    # More runs of this kind would not tell either.
    near = noisy_runs(2, slower=1.2)
    for number, sides in enumerate(((quiet, busy(near, 8)), (busy(quiet, 8), near))):
        assert gate_on(tmp_path / str(number), *sides) == 2
        assert "cannot tell: other work disturbed 8 of 8" in capsys.readouterr().out


def test_a_side_whose_runs_all_failed_is_a_regression(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    runs, later = noisy_runs(0), noisy_runs(1)
    failed = ended(later[:1], Status.FAILED)
    assert gate_on(tmp_path / "failed", runs, failed) == 1
    assert "the new side has no completed run (failed: it ended so)" in capsys.readouterr().out
    assert gate_on(tmp_path / "stopped", runs, ended(later[:1], Status.INTERRUPTED)) == 2
    assert gate_on(tmp_path / "base", failed, noisy_runs(2)) == 2
    assert "the base side has no completed run (failed: it ended so)" in capsys.readouterr().out
    assert gate_on(tmp_path / "both", failed, ended(noisy_runs(2)[:1], Status.FAILED)) == 2
    one_thread = {"threads": 1}
    before = [*runs, *noisy_runs(3, setup=one_thread)]
    after = [*later, *ended(noisy_runs(4, setup=one_thread), Status.FAILED)]
    assert gate_on(tmp_path / "one", before, after) == 1
    # Nor is it excused by a failure before.
    flaky = [*noisy_runs(5)[1:], *ended(noisy_runs(5)[:1], Status.DIVERGED)]
    assert gate_on(tmp_path / "flaky", flaky, ended(noisy_runs(6), Status.FAILED)) == 1
    elsewhere = ended(noisy_runs(7, environment={"processor": ZEN_4}), Status.FAILED)
    own = noisy_runs(8, environment={"processor": ZEN_5})
    assert gate_on(tmp_path / "elsewhere", own, elsewhere) == 2
    capsys.readouterr()
    stopped = ended(later[1:2], Status.INTERRUPTED)
    stopped = [run.model_copy(update={"reason": "Ctrl-C"}) for run in stopped]
    assert gate_on(tmp_path / "two", runs, [*failed, *stopped]) == 1
    assert "the new side has no completed run (failed: it ended so)" in capsys.readouterr().out
    # Without limits there is nothing to judge, and nothing to show.
    words = [saved(tmp_path / "a", runs), saved(tmp_path / "b", failed)]
    assert main(["compare", *words]) == 2
    assert "the new side has no completed run" in capsys.readouterr().err


def test_code_that_waits_is_slower_code(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    """Its runs look as those of a suspended machine do: nothing runs for a part of the time."""
    quiet = noisy_runs(0)
    idle = {"elapsed_seconds": 90.0, "own_seconds": 40.0, "busy_seconds": 41.0}
    waiting = [
        run.model_copy(update={"load": run.load.model_copy(update=idle)})
        for run in noisy_runs(1, slower=1.8)
    ]
    assert all(load_evidence.suspended(run) for run in waiting)
    assert gate_on(tmp_path, quiet, waiting) == 1
    assert "disturbed" not in capsys.readouterr().out


def test_a_limit_of_the_machine_is_not_called_other_work(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    changed = {"usable_cores_before": 2, "usable_cores_after": 1}
    slow = [
        run.model_copy(update={"load": run.load.model_copy(update=changed)})
        for run in noisy_runs(1, slower=1.8)
    ]
    assert all(load_evidence.allowance_changed(run) for run in slow)
    assert gate_on(tmp_path, noisy_runs(0), slow) == 2
    assert "other work or a limit of the machine disturbed 8 of 8 new runs" in (
        capsys.readouterr().out
    )


def test_sides_that_took_turns_were_disturbed_alike() -> None:
    quiet, slow = noisy_runs(0), noisy_runs(1, slower=1.8)
    by_turns = [
        run.model_copy(update={"started_at": before.started_at + timedelta(seconds=1)})
        for before, run in zip(quiet, slow, strict=True)
    ]
    assert _time_gate(busy(quiet, 8), busy(by_turns, 8), 0.1) is GateOutcome.REGRESSION


def gate_on(tmp_path: Path, base: Sequence[RunRecord], new: Sequence[RunRecord]) -> int:
    names = [saved(tmp_path / "a", base), saved(tmp_path / "b", new)]
    limits = ["--fail-if-slower", "20%", "--fail-if-less-accurate", "0.1"]
    return main(["compare", *names, *limits])


def ended(records: Sequence[RunRecord], status: Status) -> list[RunRecord]:
    changes = {"status": status, "reason": "it ended so"}
    return [record.model_copy(update=changes) for record in records]


@pytest.mark.slow
def test_no_selection_passes_the_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that are missing, were stopped, broke or cannot be read are no pass."""
    base, new = noisy_runs(0, 10), noisy_runs(1, 10)
    assert gate_on(tmp_path / "whole", base, new) == 0
    assert gate_on(tmp_path / "missing", base, new[:5]) == 2
    assert "some runs of this benchmark are not here" in capsys.readouterr().out
    stopped = [*new[:6], *ended(new[6:], Status.INTERRUPTED)]
    assert gate_on(tmp_path / "stopped", base, stopped) == 2
    assert "new: 4 of 10 not completed" in capsys.readouterr().out
    assert gate_on(tmp_path / "broke", base, [*new[:4], *ended(new[4:], Status.DIVERGED)]) == 1
    torn = tmp_path / "torn" / "b"
    torn.mkdir(parents=True)
    (torn / "torn.json").write_text("{")
    assert gate_on(tmp_path / "torn", base, new) == 2
    assert "torn.json" in capsys.readouterr().out


@pytest.mark.slow
def test_a_side_that_no_longer_reaches_the_target_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", saved(tmp_path / "a", noisy_runs(0, 10))]
    never = noisy_runs(1, 10, accuracy=0.9930)
    words.append(saved(tmp_path / "b", [r for r in never if r.target_reached_epoch is None]))
    never = [reached_nothing(record) for record in never]
    words[-1] = saved(tmp_path / "c", never)
    assert main([*words, "--fail-if-slower", "20%"]) == 1
    assert "reached by 10/10 and 0/10" in capsys.readouterr().out
    never_before = [reached_nothing(r) for r in noisy_runs(4, 10, accuracy=0.9930)]
    both = ["compare", saved(tmp_path / "d", never_before), words[-1], "--fail-if-slower", "20%"]
    assert main(both) == 2
    assert "time alone is no limit: add --fail-if-less-accurate" in capsys.readouterr().out
    assert main([*both, "--fail-if-less-accurate", "0.05"]) == 0
    assert "a baseline that never reached it cannot show fewer" in capsys.readouterr().out


def test_two_sides_that_stop_at_a_target_they_never_reach_are_no_pass(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    protocol = {"stop_at_target": True}
    sides = [[reached_nothing(r) for r in noisy_runs(n, 10, protocol=protocol)] for n in (0, 1)]
    words = ["compare", saved(tmp_path / "a", sides[0]), saved(tmp_path / "b", sides[1])]
    assert main([*words, "--fail-if-slower", "20%"]) == 2
    assert "not judged, reached by 0/10 and 0/10" in capsys.readouterr().out


def test_the_cost_of_a_success_informs_and_gates_only_where_runs_stop_at_the_target(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One new run in ten missed: with a fixed schedule, accuracy and the share decide."""
    for name, stops, status in (("fixed", False, 0), ("stops", True, 2)):
        protocol = {"stop_at_target": stops}
        base, new = noisy_runs(0, 10, protocol=protocol), noisy_runs(1, 10, protocol=protocol)
        new[4] = reached_nothing(new[4])
        words = ["compare", saved(tmp_path / name / "a", base), saved(tmp_path / name / "b", new)]
        limits = ["--fail-if-slower", "20%", "--fail-if-less-accurate", "0.2"]
        assert main([*words, *limits]) == status
        assert ("bf16: seconds a success: +" in capsys.readouterr().out) == stops


def test_a_slower_machine_is_no_slower_program(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both calibrations are of the same work: the machine itself lost 12 %."""
    base, new = (
        [
            record.model_copy(
                update={
                    "calibration": Calibration(work="a product", flops_per_second=rate, seconds=1)
                }
            )
            for record in noisy_runs(number, slower=slower)
        ]
        for number, slower, rate in ((0, 1.0, 1e12), (1, 1.12, 1e12 / 1.12))
    )
    words = ["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", new)]
    assert main([*words, "--fail-if-slower", "5%"]) == 2
    assert (
        "the machine itself +12.0 %): slower than allowed, but so is the machine"
        in capsys.readouterr().out
    )


def test_two_runs_a_side_are_no_certainty_of_accuracy(tmp_path: Path) -> None:
    line = compared(noisy_runs(0, 2), noisy_runs(1, 2)).line(Metric.ACCURACY)
    assert line.gate_difference is not None
    assert line.gate_difference.low is line.gate_difference.high is None
    assert gate_on(tmp_path, noisy_runs(0, 2), noisy_runs(1, 2)) == 2


def test_missing_and_new_cases_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A case that was renamed away must not pass silently."""
    base = [*noisy_runs(0), *noisy_runs(1, setup={"processes": 2})]
    new = [*noisy_runs(2), *noisy_runs(3, setup={"processes": 4})]
    words = ["compare", saved(tmp_path / "a", base), saved(tmp_path / "b", new)]
    assert main([*words, "--fail-if-slower", "20%"]) == 2
    text = capsys.readouterr().out
    assert "2 processes" in text
    assert "missing or renamed" in text
    assert "new, nothing to compare it with" in text


def test_a_base_of_another_machine_is_compared_but_is_no_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = noisy_runs(1, slower=1.3, setup={"device_name": "EPYC 2"}, environment={"cpu": "EPYC 2"})
    words = ["compare", saved(tmp_path / "a", noisy_runs(0)), saved(tmp_path / "b", new)]
    assert main(words) == 0
    assert "device differs: AMD EPYC (base), EPYC 2 (new)" in capsys.readouterr().out
    assert main([*words, "--fail-if-slower", "5%"]) == 2
    assert "the base is of another machine" in capsys.readouterr().out


def test_one_run_a_side_is_no_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "compare",
        saved(tmp_path / "a", noisy_runs(0, 1)),
        saved(tmp_path / "b", noisy_runs(1, 1)),
    ]
    assert main([*words, "--fail-if-slower", "5%", "--fail-if-less-accurate", "0.05"]) == 2
    assert "cannot tell" in capsys.readouterr().out


ODD: dict[str, dict[str, Any]] = {
    "a loss below zero": {"epochs": [{"epoch": 1, "steps": 1, "samples": 1, "loss": -1.0}]},
    "no laps": {"laps": []},
    "a time of before the start": {
        "laps": [
            {"kind": "train", "epoch": 1, "start_seconds": -9.0, "seconds": 1.0},
            {"kind": "eval", "epoch": 5, "start_seconds": -8.0, "seconds": 1.0},
        ]
    },
    "a time without a zone": {"started_at": "2025-11-03T09:30:00"},
    "a recipe of anything": {"recipe": {"name": ["fast"], "batch_size": [1, {}]}},
}


@pytest.mark.parametrize("what", ODD)
def test_odd_records_are_no_traceback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    odd = ODD[what] | ({"samples_seen": 1} if "epochs" in ODD[what] else {})
    new = [
        RunRecord.model_validate(record.model_dump(mode="json") | odd) for record in noisy_runs(1)
    ]
    gate_on(tmp_path, noisy_runs(0), new)
    streams = capsys.readouterr()
    # Compared as far as it goes, or refused in a line.
    assert "8 and 8 runs" in streams.out or "cannot be compared" in streams.err


def test_what_stopped_at_the_target_says_nothing_of_accuracy(tmp_path: Path) -> None:
    protocol = {"stop_at_target": True}
    line = compared(noisy_runs(0, protocol=protocol), noisy_runs(1, protocol=protocol)).line(
        Metric.ACCURACY
    )
    assert line.verdict is Verdict.ABSENT
    assert (
        gate_on(
            tmp_path,
            noisy_runs(0, protocol=protocol),
            noisy_runs(1, protocol=protocol),
        )
        == 2
    )
