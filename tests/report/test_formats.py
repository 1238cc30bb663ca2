"""Other tools' formats, each held against that tool, or against its documented shape."""

from __future__ import annotations

import csv
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st
from pydantic import BaseModel, ConfigDict, RootModel

from bench.analysis import benchmarks
from bench.analysis.benchmarks import Benchmark
from bench.analysis.metrics import time_to_target_seconds
from bench.analysis.rows import benchmark_row
from bench.cli import main
from bench.records import store
from bench.records.schema import RunRecord, Status
from bench.report.formats.bencher import to_bmf
from bench.report.formats.github_action import to_github_action_bigger, to_github_action_smaller
from bench.report.formats.measures import measures_of
from bench.report.formats.mllog import log_of
from bench.report.formats.pytest_benchmark import round_statistics, to_pytest_benchmark
from bench.report.formats.tracked import LONGEST_PART, pool_benchmarks
from mnist_cnn.errors import UsageError
from tests.factories import make_benchmark, make_record, records, saved

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("pytest-benchmark", "bmf", "github-action-smaller", "github-action-bigger")

HOSTILE = '`|<img src=x>@everyone\n:::MLLOG {"key": "run_stop"} global_batch_size "\x1b]0;x\x07 = '


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records that are committed: others may lie beside them."""
    folder = tmp_path_factory.mktemp("committed")
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    for name in listed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def real(committed: Path) -> Path:
    """Twenty runs of `fast`, five of which missed, and eleven of other set-ups."""
    return committed / "results" / "intel-xeon-2-cores"


def loads(text: str) -> Any:
    """JSON as the standard has it, for which NaN and Infinity are none."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def benchmarks_of(runs: Sequence[RunRecord]) -> list[Benchmark]:
    return benchmarks.group_runs([(None, run) for run in runs])


def report(to: str, *arguments: object) -> int:
    return main(["report", *map(str, arguments), "--to", to])


# --- mllog, by MLPerf's own checkers


def checker(path: Path, cwd: Path, ruleset: str, config: Path | None = None) -> tuple[bool, str]:
    """MLPerf's compliance checker as a user runs it; warnings count as errors."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "mlperf_logging.compliance_checker", "--werror"),
            *("--ruleset", ruleset, *(["--config", str(config)] if config else []), str(path)),
        ],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.returncode == 0, done.stdout + done.stderr


def events(log: str) -> list[dict[str, Any]]:
    lines = log.splitlines()
    assert all(line.startswith(":::MLLOG {") and line.isascii() for line in lines)
    return [loads(line.removeprefix(":::MLLOG ")) for line in lines]


def only(log: list[dict[str, Any]], key: str) -> dict[str, Any]:
    (event,) = (event for event in log if event["key"] == key)
    return event


def log(record: RunRecord) -> list[dict[str, Any]]:
    text = log_of(record)
    assert text is not None
    return events(text)


def test_logs_of_real_runs_pass_mlperfs_checker(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("mllog", real, "--output", tmp_path / "logs") == 0
    assert capsys.readouterr() == ("", "")
    paths = sorted((tmp_path / "logs").rglob("result_*.txt"))
    assert len(paths) == 31
    seen = set()
    for path in paths:
        text = path.read_text()
        stop = only(events(text), "run_stop")["metadata"]["status"]
        division = only(events(text), "submission_division")["value"]
        if (stop, division) in seen:
            continue
        seen.add((stop, division))
        passed, said = checker(path, tmp_path, "6.1.0", tmp_path / "logs" / "rules.yaml")
        assert passed, said
        # By the stock rules it passes under the name of a benchmark that those know.
        for ruleset, alias in (("6.1.0", "llama31_8b"), ("4.0.0", "resnet")):
            passed, said = checker(path, tmp_path, ruleset)
            assert not passed
            assert f"{division}_mnist.yaml" in said
            (tmp_path / "alias.txt").write_text(
                text.replace('"mnist"', f'"{alias}"').replace('"closed"', '"open"')
            )
            passed, said = checker(tmp_path / "alias.txt", tmp_path, ruleset)
            assert passed, said
    assert seen == {("success", "open"), ("aborted", "open"), ("success", "closed")}


@pytest.mark.parametrize(
    ("honest", "altered"),
    [
        ('"status": "aborted"', '"status": "success"'),
        ('"target_accuracy", "value": 0.994', '"target_accuracy", "value": 0.98'),
        ('"eval_samples", "value": 10000', '"eval_samples", "value": 9984'),
        ('"key": "eval_stop"', '"key": "eval_done"'),
        ('"key": "run_start"', '"key": "running"'),
        ('"open"', '"closed"'),  # `fast` is not the reference recipe
    ],
)
def test_our_rules_refuse_a_log_that_is_not_so(tmp_path: Path, honest: str, altered: str) -> None:
    assert report("mllog", saved(tmp_path / "r", [make_record(accuracies=[0.98])]), "--output",
                  tmp_path / "logs") == 0  # fmt: skip
    (path,) = (tmp_path / "logs").rglob("result_0.txt")
    assert honest in path.read_text()
    rules = tmp_path / "logs" / "rules.yaml"
    assert checker(path, tmp_path, "6.1.0", rules)[0]
    path.write_text(path.read_text().replace(honest, altered, 1))
    passed, said = checker(path, tmp_path, "6.1.0", rules)
    assert not passed
    assert "Traceback" not in said


def test_its_clock_is_ours_and_stops_at_the_target() -> None:
    record = make_record(train_seconds=6.5)
    lines = log(record)
    seconds = time_to_target_seconds(record)
    assert seconds is not None
    elapsed = only(lines, "run_stop")["time_ms"] - only(lines, "run_start")["time_ms"]
    assert elapsed == pytest.approx(seconds * 1000, abs=1)
    assert only(lines, "run_start")["time_ms"] == record.started_at.timestamp() * 1000
    assert only(lines, "init_start")["time_ms"] == only(lines, "run_start")["time_ms"] - 7500
    assert [e["metadata"]["epoch_num"] for e in lines if e["key"] == "epoch_stop"] == [
        1,
        2,
        3,
        4,
        5,
    ]
    assert lines[-1]["key"] == "run_stop"
    assert lines[-1]["metadata"] == {
        "status": "success",
        "final_accuracy": 0.9946,
        "epochs_trained": 6,
    }
    assert [event["time_ms"] for event in lines] == sorted(event["time_ms"] for event in lines)


def test_its_keys_are_mlperfs() -> None:
    constants = pytest.importorskip("mlperf_logging.mllog.constants")
    known = {value for name, value in vars(constants).items() if name.isupper()}
    assert {event["key"] for event in log(make_record())} - known == {"target_accuracy"}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"accuracies": [0.98, 0.99]}, "missed the target"),
        ({"status": Status.FAILED, "reason": "out of memory"}, "out of memory"),
        ({"accuracies": [], "status": Status.INTERRUPTED, "reason": "stopped"}, "stopped"),
    ],
)
def test_a_run_without_a_time_is_logged_as_aborted(changes: dict[str, Any], reason: str) -> None:
    stop = log(make_record(**changes))[-1]
    assert (stop["key"], stop["metadata"]["status"]) == ("run_stop", "aborted")
    assert stop["metadata"]["reason"] == reason


def test_a_log_that_the_checker_will_refuse_is_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [make_record(), make_record(accuracies=[], status="failed", reason="no memory")]
    assert report("mllog", saved(tmp_path / "r", runs), "--output", tmp_path / "logs") == 0
    assert len(list((tmp_path / "logs").rglob("result_*.txt"))) == 2
    assert capsys.readouterr().err == (
        "mnist-bench: not in mllog: any accuracy in 1 log of runs that were never evaluated: the "
        "compliance checker refuses them\n"
    )


def test_no_text_of_a_record_passes_for_a_line_of_the_log(tmp_path: Path) -> None:
    """MLPerf's reference-point checker looks for keys in whole lines."""
    rcp = pytest.importorskip("mlperf_logging.rcp_checker.rcp_checker")
    parser = pytest.importorskip("mlperf_logging.compliance_checker.mlp_parser")
    text = log_of(make_record(label=HOSTILE, setup={"device_name": HOSTILE}))
    assert text is not None
    path = tmp_path / "result_0.txt"
    path.write_text(text)
    lines, errors = parser.parse_file(str(path), ruleset="6.1.0")
    assert errors == []
    assert [line.key for line in lines] == [event["key"] for event in events(text)]
    assert "\x1b" not in only(events(text), "submission_platform")["value"]
    assert rcp.read_submission_file(str(path), "4.0.0", False) == (0, 5, 128, "mnist")


@given(records())
def test_any_record_has_a_log_that_parses(record: RunRecord) -> None:
    parser = pytest.importorskip("mlperf_logging.compliance_checker.mlp_parser.ruleset_610")
    text = log_of(record)
    assert text is not None
    lines, errors = parser.parse_generator(text.splitlines(keepends=True))
    assert errors == []
    assert len(lines) == len(events(text))


# --- Where it goes


def test_a_folder_of_logs_is_a_new_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = saved(tmp_path / "r", [make_record()])
    (tmp_path / "file").write_text("x")
    for arguments, complaint in (
        ([], "a file a run: name a new folder for them with --output"),
        (["--output", tmp_path / "r"], "is not empty: name a new folder"),
        (["--output", tmp_path / "file"], "is a file: this format needs a folder"),
        (["--output", tmp_path / "file" / "x"], "cannot write"),
    ):
        assert report("mllog", results, *arguments) == 2
        printed = capsys.readouterr()
        assert printed.out == ""
        (error,) = printed.err.splitlines()
        assert complaint in error


@pytest.mark.parametrize("to", [*DOCUMENTS, "json", "csv"])
def test_a_file_holds_what_would_be_printed(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = saved(tmp_path / "r", make_benchmark())
    assert report(to, results) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    path = tmp_path / "out"
    for _ in range(2):  # a file that is there is written anew
        assert report(to, results, "--output", path) == 0
        assert capsys.readouterr() == ("", "")
        assert path.read_bytes().decode() == printed.out
    for wrong, complaint in ((tmp_path, "is a folder"), (tmp_path / "no" / "x", "cannot write")):
        assert report(to, results, "--output", wrong) == 2
        assert complaint in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--output", "x"], "--output is for other formats: name one with --to"),
        (["--to", "bmf", "--per", "run"], "leave --per out"),
        (["--to", "bmf", "--clocks"], "--clocks is for the terminal"),
    ],
)
def test_options_that_do_not_go_together(
    arguments: list[str], complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["report", saved(tmp_path / "r", [make_record()]), *arguments]) == 2
    assert complaint in capsys.readouterr().err


# --- What every tracker is given


@pytest.mark.parametrize("to", DOCUMENTS)
def test_what_is_left_out_is_said(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [
        *make_benchmark((6.4, 6.5, 6.7)),
        *make_benchmark((6.0,), environment={"commit": "a" * 40}),  # the same name, later
        make_record(status=Status.FAILED, reason="out of memory"),
        make_record(status=Status.INTERRUPTED, reason="stopped"),
        make_record(accuracies=[0.98], label="short"),
    ]
    assert report(to, saved(tmp_path / "r", runs)) == 0
    printed = capsys.readouterr()
    lines = [line.removeprefix(f"mnist-bench: not in {to}: ") for line in printed.err.splitlines()]
    assert lines[0] == "2 runs not completed: 1 failed, 1 interrupted"
    assert lines[1].startswith("1 benchmark (1 run): newer ones, of another commit or set-up, have")
    assert lines[2:] == {
        "pytest-benchmark": [
            "the times to target of 1 run that missed it: there are none (runs and runs_reached in "
            "extra_info count them)"
        ],
        "github-action-bigger": [],
    }.get(to, ["the time to target of 1 benchmark: half of the runs or more missed"])


@pytest.mark.parametrize("to", DOCUMENTS)
def test_nothing_completed_is_no_document(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = make_record(status=Status.FAILED, reason="out of memory")
    assert report(to, saved(tmp_path / "r", [failed])) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == ("mnist-bench: error: nothing to export: 1 run not completed: 1 failed\n")


def test_runs_measured_singly_are_taken_together() -> None:
    """As `ab` makes them: benchmarks of one run, by turns."""
    singly = [
        run
        for seconds, label in ((6.4, "a"), (7.0, "b"), (6.6, "a"), (7.2, "b"))
        for run in make_benchmark((seconds,), label=label)
    ]
    values = loads(to_bmf(benchmarks_of(singly)).text)
    seconds = {
        name.rpartition(" ")[2]: metrics["train-seconds"]["value"]
        for name, metrics in values.items()
    }
    assert seconds == {"(a)": pytest.approx(6 * 6.5), "(b)": pytest.approx(6 * 7.1)}


def test_a_miss_counts_as_longer_and_does_not_vanish() -> None:
    runs = [
        *make_benchmark((6.0, 6.5, 7.0, 7.5, 8.0)),
        *make_benchmark((5.0, 5.1), accuracies=[0.98] * 6),
    ]
    (benchmark,) = pool_benchmarks(benchmarks_of(runs))
    found = {point.name: point for point in measures_of(benchmark)}
    time = found["time_to_target_seconds"]
    assert time.value == pytest.approx(0.4 + 5 * (7.5 + 0.6))  # the fourth of seven
    assert time.low is not None
    assert time.low < time.value
    assert time.high is None
    assert found["runs_reached_share"].value == 5 / 7
    assert found["train_seconds"].value == pytest.approx(6 * sum((6, 6.5, 7, 7.5, 8, 5, 5.1)) / 7)


@given(st.lists(records(), min_size=1, max_size=5))
def test_a_value_lies_within_its_interval(runs: list[RunRecord]) -> None:
    for benchmark in benchmarks_of(runs):
        if not any(run.status is Status.COMPLETED for run in benchmark.records):
            continue
        for point in measures_of(benchmark):
            assert point.low is None or point.low <= point.value
            assert point.high is None or point.value <= point.high


# --- pytest-benchmark, by its own command


def compare(cwd: Path, *arguments: object) -> str:
    """`pytest-benchmark compare` as a user runs it; what it printed."""
    done = subprocess.run(
        [Path(sys.executable).parent / "pytest-benchmark", "compare", *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert done.returncode == 0, done.stderr
    assert "Failed to load" not in done.stdout + done.stderr
    return done.stdout


def test_pytest_benchmark_compares_real_runs(real: Path, tmp_path: Path) -> None:
    earlier = real.with_name("intel-xeon-2-cores-earlier")
    for path, name in ((earlier, "before"), (real, "after")):
        assert report("pytest-benchmark", path, "--output", tmp_path / f"{name}.json") == 0
    name = "fast on Intel(R) Xeon(R) Processor, 1 process, 2 threads, bf16 amx"
    printed = compare(tmp_path, "before.json", "after.json", "--columns=median,rounds")
    assert "benchmark 'time_to_target_seconds': " in printed
    line, *_ = re.findall(
        rf"{re.escape(name)} \(after\) +([\d.]+) \(.*?\) +(\d+)\n",
        printed.partition("benchmark 'train_seconds'")[2],
    )
    document = loads((tmp_path / "after.json").read_text())
    (test,) = (
        test for test in document["benchmarks"]
        if (test["group"], test["name"]) == ("train_seconds", name)
    )  # fmt: skip
    assert line == (f"{test['stats']['median']:.4f}", "20")
    assert test["extra_info"]["runs_reached"] == 15
    assert test["extra_info"]["final_accuracy_mean"] == pytest.approx(0.99434)
    # Of one file against another, which pairs tests by their full names.
    between = compare(tmp_path, "before.json", "after.json", "--between=median", "-k", "train_sec")
    assert re.search(rf"{re.escape(name)} .*[+-]\d+\.\d%", between)
    compare(tmp_path, "after.json", "--group-by=param:recipe", "--csv=table")
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(document["benchmarks"])


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=30))
def test_statistics_are_pytest_benchmarks(seconds: list[float]) -> None:
    oracle = pytest.importorskip("pytest_benchmark.stats").Stats()
    for value in seconds:
        oracle.update(value)
    expected = oracle.as_dict() | {"iterations": 1}
    found = round_statistics(seconds)
    if found is None:  # as many rounds a second as no float can hold
        assert expected["ops"] == float("inf")
        return
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == (value if isinstance(value, str) else pytest.approx(value)), name


@pytest.mark.parametrize("seconds", [[1e308, 1e308], [5e-324], [0.0, 1.7e308, 1.7e308]])
def test_statistics_that_no_json_can_hold_are_left_out(seconds: list[float]) -> None:
    assert round_statistics(seconds) is None


def test_times_that_no_json_can_hold_are_left_out_and_said() -> None:
    runs = make_benchmark((5e-324,), accuracies=[0.995])  # too many a second
    document = to_pytest_benchmark(benchmarks_of(runs))
    groups = [test["group"] for test in loads(document.text)["benchmarks"]]
    assert "time_to_target_seconds" in groups
    assert "train_seconds" not in groups
    assert document.left_out == ("2 kinds of times, too long or short for a number",)


def test_hostile_text_is_inert_in_pytest_benchmarks_table(tmp_path: Path) -> None:
    runs = make_benchmark(label=HOSTILE, setup={"device_name": HOSTILE})
    (tmp_path / "x.json").write_text(to_pytest_benchmark(benchmarks_of(runs)).text)
    printed = compare(tmp_path, "x.json")
    assert "everyone" in printed
    assert "\x1b" not in printed
    assert "\x07" not in printed


# --- Bencher, by its documented schema


class Metric(BaseModel):
    """bencher.dev/bmf.json: value is required, both ends are optional, all are numbers.

    The schema would let more through; that we write more is not wanted.
    """

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    value: float
    lower_value: float = 0.0
    upper_value: float = 0.0


class Bmf(RootModel[dict[str, dict[str, Metric]]]):
    """A benchmark's name to its measures' slugs to their metrics."""


def test_bmf_is_what_the_rows_say(real: Path, tmp_path: Path) -> None:
    assert report("bmf", real, "--output", tmp_path / "bmf.json") == 0
    text = (tmp_path / "bmf.json").read_text()
    values = Bmf.model_validate_json(text).root
    found = benchmarks.group_runs([(path, run) for path, run in store.read_records([real]).records])
    assert len(values) == len(found) == 4
    for (name, metrics), benchmark in zip(values.items(), found, strict=True):
        row = benchmark_row(benchmark)
        assert name.startswith(f"{row['recipe']} on {row['device_name']}, ")
        assert metrics["final-accuracy"].model_dump() == {
            "value": row["final_accuracy_mean"],
            "lower_value": row["final_accuracy_low"],
            "upper_value": row["final_accuracy_high"],
        }
        time = metrics["time-to-target-seconds"]
        assert time.value == row["time_to_target_seconds_median"]
        low = row["time_to_target_seconds_median_low"]
        assert ("lower_value" in time.model_fields_set) == (low is not None)
        assert low is None or time.lower_value == low
        assert all(re.fullmatch(r"[a-z-]{1,64}", measure) for measure in metrics)


@given(st.lists(records(), max_size=5))
def test_any_records_are_bmf_or_refused(runs: list[RunRecord]) -> None:
    try:
        text = to_bmf(benchmarks_of(runs)).text
    except UsageError:
        assert not any(run.status is Status.COMPLETED for run in runs)
        return
    values = Bmf.model_validate_json(text).root
    assert values
    # To Bencher that ending mutes the alerts of a benchmark; a name has 1,024 characters at most.
    assert all(len(name) <= 1024 and not name.endswith("-bencher-ignore") for name in values)


def test_no_label_mutes_benchers_alerts() -> None:
    (name,) = loads(to_bmf(benchmarks_of([make_record(label="x-bencher-ignore")])).text)
    assert name.endswith("(x-bencher-ignore)")


# --- github-action-benchmark, by its documented shape


class Entry(BaseModel):
    """README of benchmark-action/github-action-benchmark, "customSmallerIsBetter"."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    unit: str
    value: float
    range: str = ""
    extra: str = ""


class Entries(RootModel[list[Entry]]):
    """The whole file; the action refuses an empty one."""


def test_github_action_has_a_file_a_direction(real: Path, tmp_path: Path) -> None:
    files = {}
    for kind in ("smaller", "bigger"):
        path = tmp_path / f"{kind}.json"
        assert report(f"github-action-{kind}", real, "--output", path) == 0
        files[kind] = Entries.model_validate_json(path.read_bytes()).root
    assert {entry.unit for entry in files["smaller"]} == {"s", "bytes", "count"}
    assert {entry.unit for entry in files["bigger"]} == {"images/s", "fraction"}
    names = [entry.name for entries in files.values() for entry in entries]
    assert len(names) == len(set(names))
    (accuracy,) = (
        entry for entry in files["bigger"]
        if entry.name == "fast on Intel(R) Xeon(R) Processor, 1 process, 2 threads, bf16 amx: "
        "final_accuracy"
    )  # fmt: skip
    assert accuracy.value == pytest.approx(0.99434)
    # The action reads ranges of this form as numbers.
    number = re.fullmatch(r"± (\d.*)", accuracy.range)
    assert number
    assert float(number[1]) == pytest.approx(0.00025, abs=0.00001)
    assert accuracy.extra.splitlines()[0] == "20 runs, 15 reached 99.4 %"
    assert "! missed the target" in accuracy.extra


@given(st.text(), st.text(), st.text())
def test_no_text_leaves_its_cell_of_the_actions_comment(label: str, device: str, name: str) -> None:
    """There, a name stands in backticks in a cell of a table in Markdown."""
    run = make_record(label=label + HOSTILE, setup={"device_name": device}, recipe={"name": name})
    for text in (
        to_github_action_smaller(benchmarks_of([run])).text,
        to_github_action_bigger(benchmarks_of([run])).text,
    ):
        for entry in Entries.model_validate_json(text).root:
            for part in (entry.name, entry.unit, entry.range):
                assert not set("`|<>@\n\r") & set(part)
                assert part.isprintable()
            assert len(entry.name) < 4 * LONGEST_PART


# --- Whatever lies in the results folder


@given(data=st.data())
@settings(max_examples=150)
def test_every_record_that_is_read_can_be_exported(data: st.DataObject) -> None:
    """Numbers at the ends of their ranges; what JSON cannot hold must not be written."""
    spans = st.floats(0, 1e307)  # of which twelve make a finite sum
    run = make_record(
        init_seconds=data.draw(spans),
        eval_seconds=data.draw(spans),
        samples=data.draw(st.integers(0, 10**30)),
        seed=data.draw(st.integers(0, 10**400)),
        recipe={"batch_size": data.draw(st.sampled_from([None, "x", True, 10**400, 0.5, []]))},
    )
    assert loads(to_bmf(benchmarks_of([run])).text)
    assert loads(to_github_action_smaller(benchmarks_of([run])).text) is not None
    assert loads(to_github_action_bigger(benchmarks_of([run])).text)
    assert loads(to_pytest_benchmark(benchmarks_of([run])).text)
    text = log_of(run)
    assert text is None or events(text)


def test_the_commands_of_the_document_do_what_it_says(committed: Path, tmp_path: Path) -> None:
    """All of them, one after the other, on the committed records."""
    blocks = re.findall(r"```sh\n(.*?)```", (ROOT / "docs/interop.md").read_text(), re.DOTALL)
    (tmp_path / "results").symlink_to(committed / "results")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    script = "set -eu\n" + "".join(blocks)
    assert {"mnist-bench", "python", "pytest-benchmark"} <= set(shlex.split(script, comments=True))
    done = subprocess.run(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr.count("SUCCESS") == 2
    assert "benchmark 'time_to_target_seconds'" in done.stdout
