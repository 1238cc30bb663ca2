"""`report` with --filter, --columns, --sort, --group-by and --baseline, as a user types them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, strategies as st

from bench.analysis import columns
from bench.analysis.comparison import Metric
from bench.analysis.filters import DEEPEST, parse_filter
from bench.analysis.rows import run_row
from bench.cli import main
from bench.records import store
from mnist_cnn.errors import UsageError
from tests.factories import compared, make_benchmark, make_record, noisy_runs, saved

COLUMNS = columns.run_column_names()
ROW = run_row((None, make_record(label="one", seed=3)))


@pytest.fixture
def results(tmp_path: Path) -> str:
    folder = tmp_path / "results"
    saved(folder, make_benchmark((6.4, 6.5, 6.7), label="slow"))
    saved(folder, make_benchmark((3.4, 3.5, 3.6), label="quick", setup={"processes": 2}))
    saved(folder, make_benchmark((9.0,), setup={"device": "cuda", "device_name": "NVIDIA H200"}))
    return str(folder)


def rows(capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    assert main(["report", *words, "--json"]) == 0
    found: list[dict[str, Any]] = json.loads(capsys.readouterr().out)
    return found


def complaint(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["report", *words]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    [line] = printed.err.splitlines()
    return line.removeprefix("mnist-bench: error: ")


# --- Conditions


@pytest.mark.parametrize(
    ("condition", "holds"),
    [
        ('device == "cpu"', True),
        ('device != "cpu"', False),
        ('device == "cpu" and processes > 1', False),
        ('device == "cuda" or (processes >= 1 and not seed < 3)', True),
        ('device in ["cpu", "mps"]', True),
        ('device not in ("cpu", "mps")', False),
        ("seed in [1, None]", False),
        ("1 < seed <= 3", True),
        ("-1.5 < seed", True),
        ("best_accuracy >= final_accuracy", True),
        ("reason == None", True),
        ("reason is None and label is not None", True),
        ("energy_joules > 0", False),
        ("energy_joules <= 0", False),
        ("energy_joules != 0", True),
        ("  seed == 3  ", True),
    ],
)
def test_a_condition_is_what_python_would_make_of_it(condition: str, holds: bool) -> None:
    assert parse_filter(condition, COLUMNS).holds(ROW) is holds


@pytest.mark.parametrize(
    ("condition", "why"),
    [
        ("", "invalid syntax"),
        ("devce == 'cpu'", "no column 'devce' (did you mean 'device'?)"),
        ("device == cpu", "no column 'cpu'"),
        ("seed == '3'", "seed is a number and '3' is a text: they cannot be compared"),
        ("device > 1", "device is a text and 1 is a number"),
        ("device in ['cpu', 1]", "they cannot be compared"),
        ("seed > None", "nothing is more or less than None"),
        ("seed is 3", "`is` is for None"),
        ("seed", "'seed' stands where a comparison should"),
        ("seed == True", "'True' stands where"),
        ("seed == 1j", "'1j' stands where"),
        ("seed in 'abc'", "stands where a list of constants"),
        ("seed + 1 == 4", "'seed + 1' stands where"),
        ("label.upper() == 'A'", "stands where a column"),
        ("__import__('os').system('true') == 0", "stands where"),
        ("(lambda: 1)() == 1", "stands where"),
        ("f'{seed}' == '3'", "stands where"),
        ("[x for x in (1,)] == 1", "stands where"),
        ("seed := 1", "invalid syntax"),
        ("seed == 1; seed", "invalid syntax"),
        ("seed == 1\x00", "null bytes"),
        ("not " * (DEEPEST + 2) + "seed == 1", "nested too deeply"),
        ("seed == 1 or " * 100 + "seed == 2", "at most 1,000 letters"),
    ],
)
def test_anything_else_is_refused_in_one_line(condition: str, why: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_filter(condition, COLUMNS)
    assert why in str(caught.value)
    assert str(caught.value).isprintable()


PIECES = st.sampled_from(
    [
        *("seed", "device", "label", "None", "True", "1", "-1", "1e999", "'a'", "b'a'"),
        *("==", "<", ">", "!=", "in", "is", "not", "and", "or", "(", ")", "[", "]", ",", ".", ":="),
        *(
            "lambda",
            ":",
            "if",
            "else",
            "for",
            "{",
            "}",
            "*",
            "**",
            "@",
            "await",
            "yield",
            "f'{",
            "\\",
        ),
        *("__import__", "('os')", ".__class__", "\n", "\x00", "'\\d'", "1or 2", "0x", "\ud800"),
    ]
)


@given(st.one_of(st.text(), st.lists(PIECES, max_size=25).map(" ".join)))
@example("(" * 500)
@example("-" * 900 + "1")
@example("[" * 90 + "]" * 90)
@example("seed == " + "9" * 900)
@example("not(" * 200 + "1" + ")" * 200)
def test_no_text_can_do_more_than_parse_or_be_refused(text: str) -> None:
    refusal = ""
    try:
        condition = parse_filter(text, COLUMNS)
    except UsageError as error:
        refusal = str(error)
    if refusal:
        assert refusal.isprintable()
        return
    assert condition.holds(ROW) in (True, False)
    assert condition.columns <= set(COLUMNS)


# --- Rows


def test_a_filter_chooses_benchmarks_or_runs(
    results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    [row] = rows(capsys, results, "--filter", 'device == "cpu" and processes > 1')
    assert (row["label"], row["runs"]) == ("quick", 3)
    found = rows(capsys, results, "--per", "run", "--filter", "seed == 0")
    assert {row["label"] for row in found} == {"slow", "quick", None}
    assert main(["report", results, "--filter", "processes > 1"]) == 0
    out = capsys.readouterr().out
    assert "2 processes" in out
    assert "H200" not in out
    assert main(["report", results, "--per", "run", "--filter", "seed == 0"]) == 0
    assert "3 records in" in capsys.readouterr().out


def test_columns_rows_and_groups_are_in_the_order_that_is_asked_for(
    results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    names = "label,processes,time_to_target_seconds_median"
    found = rows(capsys, results, "--columns", names, "--sort", "-time_to_target_seconds_median")
    assert [list(row) for row in found] == [names.split(",")] * 3
    assert [row["label"] for row in found] == [None, "slow", "quick"]
    by_label = rows(capsys, results, "--sort", "label")
    assert [row["label"] for row in by_label] == ["quick", "slow", None]  # absent values last
    grouped = rows(
        capsys, results, "--sort", "time_to_target_seconds_median", "--group-by", "device"
    )
    assert [row["device"] for row in grouped] == ["cpu", "cpu", "cuda"]


def test_the_terminal_has_them_too_and_says_what_it_leaves_out(
    results: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["report", results, "--group-by", "device", "--sort", "-runs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert [line.rstrip() for line in lines if line.startswith("device type: ")] == [
        "device type: cpu",
        "device type: cuda",
    ]
    assert "Left out: " in "".join(lines)
    assert main(["report", results, "--columns", "label,runs"]) == 0
    first = capsys.readouterr().out.splitlines()[0]
    assert first.split() == ["label", "runs"]


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (
            ["--columns", "label,runz"],
            "there is no column 'runz' (did you mean 'runs'?)",
        ),
        (["--columns", "label,label"], "--columns names label twice"),
        (["--columns", ""], "--columns: there is no column ''"),
        (["--sort", "-tim"], "--sort: there is no column 'tim'"),
        (["--group-by", "devic"], "(did you mean 'device'?)"),
        (["--filter", "runs > 99"], "--filter leaves none of 3 rows"),
        (["--baseline", "quik"], "the label 'quik' (did you mean 'quick'?)"),
        (["--columns", "label", "--to", "html"], "leave --columns"),
        (["--sort", "label", "--clocks"], "leave --columns"),
        (["--json", "--to", "csv"], "--json means --to json"),
        (["--to", "parquet"], "name a file for it with --output"),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], why: str, results: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert why in complaint(capsys, results, *words)


# --- Relative speed


def test_relative_speed_is_what_compare_says_the_other_way_round(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = noisy_runs(1, label="base"), noisy_runs(2, slower=0.5, label="new")
    saved(tmp_path, [*base, *new])
    before, after = rows(capsys, str(tmp_path), "--baseline", "base")
    assert before["relative_speed"] == 1
    assert before["relative_speed_reason"] == "the baseline"
    ratio = compared(base, new).line(Metric.TIME_TO_TARGET).difference
    assert ratio is not None
    assert ratio.low is not None
    assert ratio.high is not None
    assert after["relative_speed"] == pytest.approx(1 / ratio.value)
    assert after["relative_speed_low"] == pytest.approx(1 / ratio.high)
    assert after["relative_speed_high"] == pytest.approx(1 / ratio.low)
    assert 1.7 < after["relative_speed_low"] < after["relative_speed_high"] < 2
    assert after["relative_speed_reason"] is None
    [row] = rows(capsys, str(tmp_path), "--baseline", "base", "--filter", "relative_speed > 1.5")
    assert row["label"] == "new"
    assert main(["report", str(tmp_path), "--baseline", "base"]) == 0
    assert "relative speed" in capsys.readouterr().out


def test_the_chance_to_err_is_shared_by_the_rows_that_are_compared(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for label, seed in (("base", 1), ("a", 2), ("b", 3)):
        saved(tmp_path, noisy_runs(seed, label=label))
    row = rows(capsys, str(tmp_path), "--baseline", "base")[1]
    [alone] = rows(capsys, str(tmp_path), "--baseline", "base", "--filter", 'label == "a"')
    assert alone["relative_speed"] == row["relative_speed"]
    assert row["relative_speed_low"] < alone["relative_speed_low"]


def test_what_cannot_be_compared_has_no_relative_speed_and_a_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(tmp_path, make_benchmark((6.4, 6.5, 6.7), label="base"))
    saved(tmp_path, make_benchmark((6.4, 6.5, 6.7), label="other", division="closed"))
    saved(tmp_path, make_benchmark((6.4, 6.5), label="few"))
    saved(tmp_path, [make_record(label="missed", accuracies=[0.98])])
    found = {row["label"]: row for row in rows(capsys, str(tmp_path), "--baseline", "base")}
    assert found["other"]["relative_speed"] is None
    assert "division differs" in found["other"]["relative_speed_reason"]
    assert found["few"]["relative_speed"] == pytest.approx(1.01, abs=0.02)
    assert found["few"]["relative_speed_low"] is None
    assert "too few runs" in found["few"]["relative_speed_reason"]
    assert found["missed"]["relative_speed"] is None
    assert "not all reached it" in found["missed"]["relative_speed_reason"]
    per_run = rows(capsys, str(tmp_path), "--per", "run", "--baseline", "base")
    own = {row["relative_speed_reason"] for row in per_run if row["label"] == "base"}
    assert own == {"part of the baseline"}
    assert len(store.read_records([tmp_path]).records) == len(per_run)
