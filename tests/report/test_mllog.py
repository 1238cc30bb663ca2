"""Logs in MLPerf's format, held against MLPerf's own checkers."""

from __future__ import annotations

import csv
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from bench.analysis.metrics import time_to_target_seconds
from bench.records.schema import RunRecord, Status
from bench.report.formats.mllog import log_of
from tests.factories import make_record, records, saved
from tests.report.exports import HOSTILE, events, report

INTEROP = Path(__file__).resolve().parents[2] / "docs" / "interop.md"
MLPERF_SYSTEM = {
    "division": "open",
    "status": "research",
    "submitter": "mnist-bench",
    "system_name": "machine",
    "host_processor_model_name": "any",
    "host_processor_core_count": "2",
    "host_processors_per_node": "1",
    "number_of_nodes": "1",
    "accelerator_model_name": "",
    "accelerators_per_node": "0",
    "framework": "PyTorch",
    "hw_notes": "",
    "sw_notes": "",
}
"""What a submission says of its system."""


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


def only(log: list[dict[str, Any]], key: str) -> dict[str, Any]:
    (event,) = (event for event in log if event["key"] == key)
    return event


def log(record: RunRecord) -> list[dict[str, Any]]:
    text = log_of(record)
    assert text is not None
    return events(text)


@pytest.mark.slow
def test_logs_of_real_runs_pass_mlperfs_checker(
    real: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert report("mllog", real, "--output", tmp_path / "logs") == 0
    assert capsys.readouterr() == ("", "")
    paths = sorted((tmp_path / "logs").rglob("result_*.txt"))
    assert len(paths) == 26
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


@pytest.mark.slow
@pytest.mark.parametrize("missed", [0, 1, 2])
def test_by_the_documented_alias_mlperfs_summarizer_counts_no_aborted_run_as_converged(
    tmp_path: Path, missed: int
) -> None:
    """It drops one such run of five, and gives no time where more have not converged."""
    runs = [
        make_record(seed=seed, accuracies=[0.98 if seed < missed else 0.995]) for seed in range(5)
    ]
    assert report("mllog", saved(tmp_path / "r", runs), "--output", tmp_path / "logs") == 0
    (alias,) = re.findall(r"^sed (.*) logs/\S+ > alias.txt$", INTEROP.read_text(), re.MULTILINE)
    results = tmp_path / "package" / "results" / "machine" / "resnet"
    results.mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "logs").rglob("result_*.txt"))):
        with (results / f"result_{number}.txt").open("w") as stream:
            subprocess.run(["sed", *shlex.split(alias), path], stdout=stream, check=True)
    (tmp_path / "package" / "systems").mkdir()
    (tmp_path / "package" / "systems" / "machine.json").write_text(json.dumps(MLPERF_SYSTEM))
    summarizer = [sys.executable, "-m", "mlperf_logging.result_summarizer"]
    done = subprocess.run(
        [*summarizer, "package", "training", "4.0.0", "--csv", "summary.csv"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.count("Compliance check failed") == missed
    assert ("Dropping non-converged run(s)" in done.stdout) == (missed == 1)
    assert ("Too many non-converging runs" in done.stdout) == (missed == 2)
    with (tmp_path / "summary.csv").open() as stream:
        (row,) = csv.DictReader(stream)
    if missed < 2:
        seconds = time_to_target_seconds(runs[-1])
        assert seconds is not None
        assert float(row["resnet"]) == pytest.approx(seconds / 60)


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


@pytest.mark.slow
@given(records())
def test_any_record_has_a_log_that_parses(record: RunRecord) -> None:
    parser = pytest.importorskip("mlperf_logging.compliance_checker.mlp_parser.ruleset_610")
    text = log_of(record)
    assert text is not None
    lines, errors = parser.parse_generator(text.splitlines(keepends=True))
    assert errors == []
    assert len(lines) == len(events(text))
