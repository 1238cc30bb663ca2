"""`mnist-bench run --parallel-seeds`: several runs at a time, each by a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest
from hypothesis import given, strategies as st

from bench.cli import main
from bench.measure.seed_share import VARIABLE, SeedShare
from bench.records import store
from bench.records.schema import RunRecord
from tests.stand_ins import FEW_IMAGES

BIN = Path(sys.executable).parent
SHORT = ("--recipe", "fast", "--device", "cpu", "--epochs", "2", "--threads", "1")


def part(index: int = 0, count: int = 2, visible: str | None = None) -> SeedShare:
    return SeedShare(index, count, "id", threads=1, visible=visible, records="")


@given(runs=st.integers(1, 50), count=st.integers(1, 8))
def test_each_run_is_made_by_one_process(runs: int, count: int) -> None:
    makers = [[k for k in range(count) if part(k, count).makes(run)] for run in range(1, runs + 1)]
    assert all(len(found) == 1 for found in makers)
    each = [sum(found == [k] for found in makers) for k in range(count)]
    assert max(each) - min(each) <= 1


@pytest.mark.parametrize(
    ("visible", "gpus", "given"),
    [
        (None, 2, ["0", "1", "0"]),
        ("3, 5", 2, ["3", "5", "3"]),
        ("GPU-8932f937,GPU-a1b2", 2, ["GPU-8932f937", "GPU-a1b2", "GPU-8932f937"]),
        (None, 0, [None, None, None]),
    ],
)
def test_each_process_has_a_gpu_of_those_the_user_lets_be_seen(
    visible: str | None, gpus: int, given: list[str | None]
) -> None:
    told = [part(k, 3, visible).variables(gpus) for k in range(3)]
    assert [variables.get("CUDA_VISIBLE_DEVICES") for variables in told] == given
    # In the records it is as the user had it, or runs on other GPUs would be other set-ups.
    kept = part(visible=visible).restore_user_variables({"CUDA_VISIBLE_DEVICES": "1", "A": "b"})
    assert kept == {"A": "b"} | ({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})


def test_a_process_finds_what_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert SeedShare.from_environment() is None
    for name, text in part(1).variables(0).items():
        monkeypatch.setenv(name, text)
    assert SeedShare.from_environment() == part(1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["0"], "--parallel-seeds must be at least 1, not 0"),
        (["many"], "--parallel-seeds must be a whole number or auto, not 'many'"),
        (["2", "--processes", "2"], "goes without --processes: leave one of the two out"),
        (["2", "--machines", "2"], "goes without --machines"),
        (["2", "--runs", "auto"], "goes without --runs auto"),
        (["2", "--profile", "trace.json"], "goes without --profile"),
        (["2", "--checkpoint-every", "1"], "goes without --checkpoint-every and --resume"),
        (["2", "--threads", "99999"], "--threads must be 1 to "),
        (["2", "--kernels", "triton"], "triton"),
    ],
)
def test_what_does_not_go_together_is_one_line(
    words: list[str], message: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    options = ["--recipe", "fast", "--device", "cpu", "--results-dir", str(tmp_path)]
    assert main(["run", *options, "--parallel-seeds", *words]) == 2
    printed = capsys.readouterr().err.strip().splitlines()
    assert message in printed[-1]
    assert not list(tmp_path.iterdir())


def test_a_dry_run_prints_a_command_a_process(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", *SHORT, "--runs", "2", "--parallel-seeds", "5", "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2  # there are no more runs than that
    for index, line in enumerate(lines):
        assert f'"index": {index}, "count": 2' in line
        assert line.endswith(f"{' '.join(SHORT)} --runs 2 --parallel-seeds 5")


def start(folder: Path, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "mnist-bench"), "run", *SHORT, *words, "--results-dir", str(folder)],
        env=os.environ | FEW_IMAGES,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def kept(folder: Path) -> list[RunRecord]:
    found = store.read_records([folder])
    assert found.problems == []
    return sorted((record for _, record in found.records), key=lambda record: record.run_index)


def workers(parent: int) -> list[int]:
    """Numbers of the processes that measure, by which part is theirs."""
    parts: dict[int, int] = {}
    for process in psutil.Process(parent).children(recursive=True):
        guardian = process.parent()
        share = process.environ().get(VARIABLE)
        if share is not None and guardian is not None and VARIABLE in guardian.environ():
            parts[json.loads(share)["index"]] = process.pid
    return [parts[index] for index in sorted(parts)]


def wait_for(stream: Iterable[str], words: str) -> None:
    assert any(words in line for line in stream)


@pytest.mark.slow
def test_they_are_one_benchmark_and_each_the_run_it_would_be_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with start(tmp_path / "both", "--runs", "2", "--parallel-seeds", "2", "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    first, second = kept(tmp_path / "both")
    assert first.benchmark_id == second.benchmark_id
    assert [(r.run_index, r.seed) for r in (first, second)] == [(1, 0), (2, 1)]
    assert first.setup == second.setup
    assert first.setup.parallel_seeds == 2
    assert first.load.own_seconds is None
    assert [row["record_path"] is None for row in json.loads(out)] == [False, False]
    with start(tmp_path / "alone", "--runs", "1", "--seed", "1", "--quiet") as process:
        process.communicate()
    (alone,) = kept(tmp_path / "alone")
    assert alone.evaluations == second.evaluations
    assert alone.epochs == second.epochs
    main(["verify", str(tmp_path / "both"), "--json"])
    checks = {c["name"]: c["outcome"] for c in json.loads(capsys.readouterr().out)["checks"]}
    assert (checks["records"], checks["seeds"]) == ("pass", "pass")


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_one_that_is_killed_takes_no_other_with_it(tmp_path: Path) -> None:
    # So many epochs, seconds of them, that neither run is over before one is killed.
    words = ("--runs", "2", "--parallel-seeds", "2", "--epochs", "60")
    with start(tmp_path, *words) as process:
        assert process.stderr is not None
        wait_for(process.stderr, "run 2 of 2: seed 1")
        first, second = workers(process.pid)
        assert first != second
        assert not kept(tmp_path)  # the second began before the first was over
        os.kill(second, signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 1
    assert "mnist-bench: error: the process was ended by SIGKILL" in err
    first_record, second_record = kept(tmp_path)
    assert (first_record.seed, first_record.status) == (0, "completed")
    assert (second_record.seed, second_record.status) == (1, "failed")
    assert second_record.reason == "the process was ended by SIGKILL"
    assert "2 runs at a time" in out


@pytest.mark.thorough
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to others")
def test_what_the_process_of_a_killed_guardian_saves_is_in_the_table(tmp_path: Path) -> None:
    words = ("--runs", "2", "--parallel-seeds", "2", "--epochs", "60")
    with start(tmp_path, *words) as process:
        assert process.stderr is not None
        wait_for(process.stderr, "run 2 of 2: seed 1")
        _, second = workers(process.pid)
        os.kill(psutil.Process(second).ppid(), signal.SIGKILL)
        out, err = process.communicate()
    assert process.returncode == 1
    assert "process 2 of 2 was ended by SIGKILL" in err
    assert [(record.seed, record.status) for record in kept(tmp_path)] == [
        (0, "completed"),
        (1, "failed"),
    ]
    rows = [line.split()[:3] for line in out.splitlines() if line[:1].isdigit() or "failed" in line]
    assert ["2", "1", "failed"] in rows


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="finds the processes in /proc")
def test_an_interruption_reaches_all_and_each_leaves_its_record(tmp_path: Path) -> None:
    words = ("--runs", "4", "--parallel-seeds", "2", "--epochs", "5000")
    with start(tmp_path, *words) as process:
        assert process.stderr is not None
        wait_for(process.stderr, "run 2 of 4: seed 1")
        children = workers(process.pid)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate()
    assert process.returncode == 130, err
    assert all(record.status == "interrupted" for record in kept(tmp_path))
    assert 1 <= len(kept(tmp_path)) <= 2
    for child in children:
        with pytest.raises(ProcessLookupError):
            os.kill(child, 0)
