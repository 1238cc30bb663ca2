"""`mnist-bench compare`: what may be compared, what is said of it, and the gate."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.contrast import Contrast, Metric, Verdict, contrast
from bench.gate import Limits, Outcome, judge, verdict
from bench.records import RunRecord, Status, first_reached
from bench.sides import Side, interleaved, match
from bench.store import save
from mnist_cnn.errors import UsageError
from tests.factories import make_benchmark, make_record

ACCURACIES = (0.9712, 0.9871, 0.9899, 0.9921, 0.9941, 0.9946)


def noisy(
    seed: int,
    count: int = 8,
    slower: float = 1.0,
    spread: float = 0.01,
    accuracy: float = 0.9945,
    loss: float = 1.0,
    **overrides: Any,
) -> list[RunRecord]:
    """A benchmark whose epochs train 6.5 s but for noise, and whose accuracy scatters a little."""
    generator = random.Random(seed)
    records = []
    for record in make_benchmark(
        [6.5 * slower * generator.lognormvariate(0, spread) for _ in range(count)], **overrides
    ):
        final = round(accuracy + generator.gauss(0, 0.0002), 4)
        fresh = make_record(accuracies=(*ACCURACIES[:-1], final))
        epochs = [
            {**e.model_dump(), "loss": loss * (e.loss or 1) * generator.lognormvariate(0, 0.01)}
            for e in record.epochs
        ]
        values = record.model_dump() | {
            "evaluations": fresh.model_dump()["evaluations"],
            "final_accuracy": fresh.final_accuracy,
            "target_reached_epoch": first_reached(
                fresh.evaluations, record.protocol.target_accuracy
            ),
            "epochs": epochs,
            # One benchmark after the other: not by turns.
            "started_at": record.started_at + timedelta(hours=seed),
        }
        records.append(RunRecord.model_validate(values))
    return records


def compared(base: Sequence[RunRecord], new: Sequence[RunRecord], comparisons: int = 1) -> Contrast:
    (case,) = match(Side("base", tuple(base)), Side("new", tuple(new))).cases
    return contrast(case, comparisons)


def folder(path: Path, records: Sequence[RunRecord]) -> str:
    for record in records:
        save(record, path)
    return str(path)


# --- What is said of a difference


def test_slower_and_otherwise_the_same() -> None:
    found = compared(noisy(0), noisy(1, slower=1.1))
    assert found.line(Metric.SECONDS_AN_IMAGE).verdict is Verdict.WORSE
    assert found.line(Metric.TIME_TO_TARGET).verdict is Verdict.WORSE
    assert found.line(Metric.ACCURACY).verdict is Verdict.EQUIVALENT
    assert found.line(Metric.CONVERGENCE).verdict is Verdict.ALIKE
    difference = found.line(Metric.SECONDS_AN_IMAGE).difference
    assert difference is not None
    assert difference.value == pytest.approx(1.1, abs=0.02)
    backwards = compared(noisy(1, slower=1.1), noisy(0)).line(Metric.SECONDS_AN_IMAGE)
    assert backwards.verdict is Verdict.BETTER


def test_fast_and_wrong_is_seen() -> None:
    """A backend that computes something else: its losses tell, whatever its last accuracy."""
    found = compared(noisy(0), noisy(1, loss=1.3))
    assert found.line(Metric.CONVERGENCE).verdict is Verdict.APART
    findings = judge(
        match(Side("a", tuple(noisy(0))), Side("b", tuple(noisy(1, loss=1.3)))),
        [found],
        Limits(slower=0.05),
    )
    assert verdict(findings) is Outcome.REGRESSION


def test_less_accurate_is_seen_and_nearly_equal_is_not_called_so_without_proof() -> None:
    worse = compared(noisy(0), noisy(1, accuracy=0.9930)).line(Metric.ACCURACY)
    assert worse.verdict is Verdict.WORSE
    assert worse.difference is not None
    assert worse.difference.value == pytest.approx(-0.15, abs=0.03)
    few = compared(noisy(0, count=2), noisy(1, count=2)).line(Metric.ACCURACY)
    assert few.verdict is Verdict.UNCLEAR


def test_runs_that_missed_the_target_make_it_dearer() -> None:
    base = noisy(0, count=6)
    misses = noisy(1, count=3, accuracy=0.9920, protocol={"target_accuracy": 0.994})
    short = [
        make_record(accuracies=(0.98, 0.99), benchmark_id="c" * 32, started_at=r.started_at, seed=9)
        for r in misses
    ]
    same_recipe = [r.model_copy(update={"recipe": base[0].recipe}) for r in short]
    found = compared(base, [*noisy(2, count=3), *same_recipe])
    line = found.line(Metric.TIME_TO_TARGET)
    assert "reached by 6/6 and 3/6" in line.note
    assert line.difference is not None
    assert line.difference.value > 1
    assert found.line(Metric.SAMPLES_TO_TARGET).verdict is Verdict.ABSENT


def test_turns_are_recognised_and_cancel_what_both_sides_share() -> None:
    """The machine slows down threefold in between; the pairs do not care."""
    start = make_record().started_at
    base: list[RunRecord] = []
    new: list[RunRecord] = []
    generator = random.Random(0)
    for index in range(10):
        drift = 3.0 if index % 3 == 0 else 1.0
        for side, slower in ((base, 1.0), (new, 1.05)):
            side.append(
                make_record(
                    train_seconds=6.5 * drift * slower * generator.lognormvariate(0, 0.005),
                    seed=index,
                    started_at=start + timedelta(minutes=2 * index + (side is new)),
                )
            )
    assert interleaved(base, new)
    found = compared(base, new)
    assert found.paired
    assert found.line(Metric.SECONDS_AN_IMAGE).verdict is Verdict.WORSE
    later = [r.model_copy(update={"started_at": r.started_at + timedelta(hours=9)}) for r in new]
    unpaired = compared(base, later)
    assert not unpaired.paired
    assert unpaired.line(Metric.SECONDS_AN_IMAGE).verdict is Verdict.UNCLEAR


def test_the_same_seeds_by_turns_cancel_what_the_seed_decides() -> None:
    """The new side is 0.02 points worse with every seed; between seeds there are 0.3."""
    start = make_record().started_at
    base: list[RunRecord] = []
    new: list[RunRecord] = []
    for index in range(8):
        for side, worse in ((base, 0.0), (new, 0.0002)):
            final = round(0.9930 + 0.0004 * index - worse, 4)
            side.append(
                make_record(
                    accuracies=(*ACCURACIES[:-1], final),
                    seed=index,
                    started_at=start + timedelta(minutes=2 * index + (side is new)),
                )
            )
    line = compared(base, new).line(Metric.ACCURACY)
    assert line.verdict is Verdict.EQUIVALENT
    assert line.difference is not None
    assert line.difference.value == pytest.approx(-0.02)
    other = [record.model_copy(update={"seed": record.seed + 100}) for record in new]
    assert compared(base, other).line(Metric.ACCURACY).verdict is Verdict.UNCLEAR


def test_more_comparisons_make_each_more_careful() -> None:
    base, new = noisy(0), noisy(1, slower=1.02)
    one, ten = (
        compared(base, new, comparisons).line(Metric.SECONDS_AN_IMAGE).difference
        for comparisons in (1, 10)
    )
    assert one is not None
    assert ten is not None
    assert None not in (one.low, one.high, ten.low, ten.high)
    assert ten.low < one.low < one.high < ten.high  # type: ignore[operator]


# --- The gate's rates


@pytest.mark.parametrize("count", [3, 5, 10])
@pytest.mark.parametrize("spread", [0.01, 0.15])
def test_the_gate_seldom_fires_where_nothing_has_changed(count: int, spread: float) -> None:
    """At most its 5 % to either side, on times alone; noise of 1 % and of 15 %."""
    fired = passed = 0
    runs = 60
    for seed in range(runs):
        outcome = _time_gate(
            noisy(2 * seed, count, spread=spread), noisy(2 * seed + 1, count, spread=spread), 0.0
        )
        fired += outcome is Outcome.REGRESSION
        passed += outcome is Outcome.PASS
    # Allowed: nothing. 5 % of 60, and what chance adds once in a thousand times.
    assert fired <= 9
    assert passed <= 9


@pytest.mark.parametrize(("slower", "sees"), [(1.05, 0.0), (1.10, 0.9)])
def test_the_gate_sees_what_is_more_than_allowed(slower: float, sees: float) -> None:
    """1 % noise, ten runs a side, 5 % allowed: 5 % is not more, 10 % is nearly always seen."""
    runs = 30
    outcomes = [
        _time_gate(noisy(2 * seed, 10), noisy(2 * seed + 1, 10, slower=slower), 0.05)
        for seed in range(runs)
    ]
    rate = sum(outcome is Outcome.REGRESSION for outcome in outcomes) / runs
    assert rate >= sees
    if slower == 1.05:
        assert rate <= 0.2


def _time_gate(base: list[RunRecord], new: list[RunRecord], allowed: float) -> Outcome:
    matched = match(Side("base", tuple(base)), Side("new", tuple(new)))
    found = contrast(matched.cases[0], 1)
    only = [line for line in found.lines if line.metric is Metric.SECONDS_AN_IMAGE]
    return verdict(judge(matched, [replace(found, lines=tuple(only))], Limits(allowed)))


# --- The command


def test_a_table_and_the_gates_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "100")
    base = folder(tmp_path / "base", noisy(0))
    new = folder(tmp_path / "new", noisy(1, slower=1.2))
    assert main(["compare", base, new]) == 0
    table = capsys.readouterr().out
    assert "time to target" in table
    assert "worse" in table
    assert "+20" in table
    summary = tmp_path / "summary.md"
    words = ["compare", base, new, "--fail-if-slower", "5%", "--summary", str(summary)]
    assert main(words) == 1
    lines = capsys.readouterr().out
    assert "regression" in lines
    assert "allowed +5.0 %" in lines
    assert summary.read_text().startswith("| outcome | what |")
    assert main([*words[:3], "--fail-if-slower", "50%"]) == 0
    assert main(["compare", base, new, "--fail-if-less-accurate", "0.05"]) == 0
    assert main(["compare", new, base, "--fail-if-slower", "5%"]) == 0


def test_sides_by_label_commit_and_id(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder(tmp_path / "results", noisy(0, label="before", environment={"commit": "a" * 40}))
    folder(tmp_path / "results", noisy(1, label="after", environment={"commit": "b" * 40}))
    assert main(["compare", "before", "after"]) == 0
    assert main(["compare", "aaaaaaa", "bbbbbbbb"]) == 0
    assert main(["compare", "befor", "after"]) == 2
    assert "did you mean 'before'" in capsys.readouterr().err


Make = Callable[[], tuple[list[RunRecord], list[RunRecord]]]
REFUSED: dict[str, tuple[Make, str]] = {
    "another target": (
        lambda: (noisy(0), noisy(1, protocol={"target_accuracy": 0.99})),
        "target differs: 0.994 against 0.99",
    ),
    "another protocol": (
        lambda: (noisy(0), noisy(1, protocol={"version": 2})),
        "protocol version differs: 1 against 2",
    ),
    "another division": (
        lambda: (noisy(0), noisy(1, division="closed")),
        "division differs: open against closed",
    ),
    "other data": (
        lambda: (noisy(0), noisy(1, dataset={"train-images-idx3-ubyte": "cafe" * 16})),
        "data sums differs: train-images-idx3-ubyte",
    ),
    "two kinds within a side": (
        lambda: ([*noisy(0), *noisy(2, division="closed")], noisy(1)),
        "not of one kind: division differs",
    ),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_compared_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    make, message = REFUSED[what]
    base, new = make()
    words = ["compare", folder(tmp_path / "a", base), folder(tmp_path / "b", new)]
    assert main(words) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


def test_what_differs_is_remarked_upon(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = noisy(0)
    new = noisy(1, setup={"precision": "fp32"}, environment={"torch": "9.9", "dirty": True})
    words = ["compare", folder(tmp_path / "a", base), folder(tmp_path / "b", new)]
    assert main(words) == 0
    table = capsys.readouterr().out
    assert "precision differs" in table
    assert "torch differs" in table
    assert "files differed from the commit" in table


def gate_on(tmp_path: Path, base: Sequence[RunRecord], new: Sequence[RunRecord]) -> int:
    names = [folder(tmp_path / "a", base), folder(tmp_path / "b", new)]
    limits = ["--fail-if-slower", "20%", "--fail-if-less-accurate", "0.1"]
    return main(["compare", *names, *limits])


def ended(records: Sequence[RunRecord], status: Status) -> list[RunRecord]:
    changes = {"status": status, "reason": "it ended so"}
    return [record.model_copy(update=changes) for record in records]


def test_no_selection_passes_the_gate(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Runs that are missing, were stopped, broke or cannot be read are no pass."""
    base, new = noisy(0, 10), noisy(1, 10)
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


def test_a_side_that_no_longer_reaches_the_target_is_a_regression(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["compare", folder(tmp_path / "a", noisy(0, 10))]
    never = noisy(1, 10, accuracy=0.9930)
    words.append(folder(tmp_path / "b", [r for r in never if r.target_reached_epoch is None]))
    never = [reached_nothing(record) for record in never]
    words[-1] = folder(tmp_path / "c", never)
    assert main([*words, "--fail-if-slower", "20%"]) == 1
    assert "reached by 10/10 and 0/10" in capsys.readouterr().out
    both = [
        "compare",
        folder(tmp_path / "d", [reached_nothing(r) for r in noisy(4, 10)]),
        words[-1],
    ]
    assert main([*both, "--fail-if-slower", "20%"]) == 0
    assert "not judged, reached by 0/10 and 0/10" in capsys.readouterr().out


def reached_nothing(record: RunRecord) -> RunRecord:
    """The same run, had every evaluation been half a point lower."""
    lower = [{**e.model_dump(), "correct": e.correct - 50} for e in record.evaluations]
    values = record.model_dump() | {"evaluations": lower, "target_reached_epoch": None}
    values["final_accuracy"] = lower[-1]["correct"] / lower[-1]["samples"]
    return RunRecord.model_validate(values)


def test_what_stopped_at_the_target_says_nothing_of_accuracy(tmp_path: Path) -> None:
    protocol = {"stop_at_target": True}
    line = compared(noisy(0, protocol=protocol), noisy(1, protocol=protocol)).line(Metric.ACCURACY)
    assert line.verdict is Verdict.ABSENT
    assert gate_on(tmp_path, noisy(0, protocol=protocol), noisy(1, protocol=protocol)) == 2


def test_two_runs_that_happen_to_be_equal_are_no_certainty(tmp_path: Path) -> None:
    same = [r.model_copy(update={"final_accuracy": r.final_accuracy}) for r in noisy(0, 2)]
    assert compared(same, noisy(1, 2)).line(Metric.ACCURACY).bound is not None
    assert gate_on(tmp_path, noisy(0, 2), noisy(1, 2)) == 2


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
    new = [RunRecord.model_validate(record.model_dump(mode="json") | odd) for record in noisy(1)]
    status = gate_on(tmp_path, noisy(0), new)
    assert status in (0, 1, 2)
    assert "Traceback" not in capsys.readouterr().err


def test_missing_and_new_cases_are_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A case that was renamed away must not pass silently."""
    base = [*noisy(0), *noisy(1, setup={"processes": 2})]
    new = [*noisy(2), *noisy(3, setup={"processes": 4})]
    words = ["compare", folder(tmp_path / "a", base), folder(tmp_path / "b", new)]
    assert main([*words, "--fail-if-slower", "20%"]) == 2
    text = capsys.readouterr().out
    assert "2 processes" in text
    assert "missing or renamed" in text
    assert "new, nothing to compare it with" in text


def test_a_base_of_another_machine_is_compared_but_is_no_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = noisy(1, slower=1.3, setup={"device_name": "EPYC 2"}, environment={"cpu": "EPYC 2"})
    words = ["compare", folder(tmp_path / "a", noisy(0)), folder(tmp_path / "b", new)]
    assert main(words) == 0
    assert "device differs: AMD EPYC against EPYC 2" in capsys.readouterr().out
    assert main([*words, "--fail-if-slower", "5%"]) == 2
    assert "the base is of another machine" in capsys.readouterr().out


BAD: dict[str, tuple[list[str], str]] = {
    "one side": (["compare", "{a}"], "name two things to compare"),
    "no name": (["compare", "", "{a}"], "one of the names to compare is empty"),
    "a very long name": (["compare", "x" * 300, "{a}"], "is no file or folder"),
    "itself": (["compare", "{a}", "{a}"], "in common"),
    "an empty folder": (["compare", "{a}", "{empty}"], "no run records in"),
    "no such thing": (["compare", "{a}", "nowhere"], "is no file or folder"),
    "not a share": (["compare", "{a}", "{b}", "--fail-if-slower", "fast"], "takes a number"),
    "NaN": (["compare", "{a}", "{b}", "--fail-if-slower", "nan"], "takes a number"),
    "too much": (["compare", "{a}", "{b}", "--fail-if-slower", "500%"], "0 to 100"),
    "a summary of nothing": (["compare", "{a}", "{b}", "--summary", "{empty}/s"], "the gate's"),
    "all failed": (["compare", "{a}", "{failed}"], "no completed run among the new's"),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_input_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    words, message = BAD[what]
    (tmp_path / "empty").mkdir()
    failed = [
        record.model_copy(update={"status": Status.FAILED, "reason": "RuntimeError: out of memory"})
        for record in noisy(3)
    ]
    names = {
        "a": folder(tmp_path / "a", noisy(0)),
        "b": folder(tmp_path / "b", noisy(1)),
        "failed": folder(tmp_path / "failed", failed),
        "empty": str(tmp_path / "empty"),
    }
    assert main([word.format(**names) for word in words]) == 2
    streams = capsys.readouterr()
    assert message in streams.err
    assert streams.err.count("\n") == 1
    assert "Traceback" not in streams.err


def test_one_run_a_side_is_no_claim(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["compare", folder(tmp_path / "a", noisy(0, 1)), folder(tmp_path / "b", noisy(1, 1))]
    assert main([*words, "--fail-if-slower", "5%", "--fail-if-less-accurate", "0.05"]) == 2
    assert "cannot tell" in capsys.readouterr().out


def test_older_schemas_are_compared_and_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = folder(tmp_path / "a", noisy(0))
    for path in Path(base).rglob("*.json"):
        values = json.loads(path.read_text())
        values["schema_version"] = 1
        del values["setup"]["kernels"]
        path.write_text(json.dumps(values))
    assert main(["compare", base, folder(tmp_path / "b", noisy(1))]) == 0
    assert "record schema differs: 1 against 4" in capsys.readouterr().out


def test_a_side_is_not_compared_with_itself() -> None:
    runs = tuple(noisy(0))
    with pytest.raises(UsageError, match="8 runs in common"):
        match(Side("a", runs), Side("b", runs))
