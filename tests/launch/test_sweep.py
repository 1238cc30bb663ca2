"""`mnist-bench sweep`: which runs, in which order, how it continues, and a real sweep."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import psutil
import pytest
from hypothesis import given, strategies as st

from bench.analysis.scaling import ScalingMode
from bench.cli import main
from bench.launch.matrix import Matrix, Shard, randomized_blocks
from bench.launch.supervisor import EndedProcesses
from bench.records import store, sweep_plan
from bench.records.folders import LOCAL_DIR
from mnist_cnn.recipe import FAST, REFERENCE, division
from tests.factories import make_record
from tests.stand_ins import FEW_IMAGES, FEWER_IMAGES

ROOT = Path(__file__).resolve().parents[2]
SWEEP = ["sweep", "--recipe", "fast", "--processes", "1,2", "--threads", "1", "--seeds", "3"]


class Machine:
    """Runs that take no time: they save what `run` would save, or fail on request."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.started: list[list[str]] = []
        self.fails: dict[str, int] = {}
        """Exit status of the runs with this value of --processes."""
        self.status = "failed"
        """Status in the record of a failing run; "" for no record."""

    def __call__(self, command: list[str], *_: object, **__: object) -> EndedProcesses:
        words = command[1:]
        self.started.append(words)
        options = {a: b for a, b in pairwise(words) if a.startswith("--")}
        code = self.fails.get(options["--processes"], 0)
        if code == 0 or self.status:
            record = make_record(
                label=options["--label"],
                seed=int(options["--seed"]),
                command=words,
                started_at=datetime.now(UTC),
                setup={"processes": int(options["--processes"]), "threads": 1},
                status=self.status if code else "completed",
                reason="it broke" if code else None,
            )
            store.save_record(record, Path(options["--results-dir"]))
        return EndedProcesses([code], interrupted=False)

    def made_runs(self) -> list[tuple[str, str]]:
        """Processes and seed of each run, in the order made."""
        return [
            (words[words.index("--processes") + 1], words[words.index("--seed") + 1])
            for words in self.started
        ]


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.chdir(tmp_path)
    made = Machine(tmp_path)
    monkeypatch.setattr("bench.launch.single_run.run_each", made)
    return made


def test_each_combination_is_run_once_in_a_recorded_order(machine: Machine) -> None:
    assert main([*SWEEP, "--order-seed", "7", "--epochs", "2"]) == 0
    made = machine.made_runs()
    assert Counter(made) == Counter((p, s) for p in "12" for s in "012")
    assert [seed for _, seed in made] == sorted(seed for _, seed in made)
    assert all(words[words.index("--epochs") + 1] == "2" for words in machine.started)
    line = json.loads((machine.folder / LOCAL_DIR / "sweep.sweep").read_text())
    assert line["order_seed"] == 7
    assert [(r[r.index("--processes") + 1], r[-1]) for r in line["runs"]] == made


def test_it_stops_where_the_results_folder_takes_no_more_records(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fails, machine.status = {"1": 1, "2": 1}, ""

    def make_run(command: list[str], *others: object, **named: object) -> EndedProcesses:
        ended = machine(command, *others, **named)
        shutil.rmtree(LOCAL_DIR)
        LOCAL_DIR.touch()
        return ended

    monkeypatch.setattr("bench.launch.single_run.run_each", make_run)
    assert main(SWEEP) == 1
    assert len(machine.started) == 1
    lines = capsys.readouterr().err.splitlines()
    (line,) = [line for line in lines if line.startswith("cannot write to the results folder")]
    assert line.endswith("; 5 runs left")


def test_half_a_line_of_a_plan_is_no_line(machine: Machine) -> None:
    """Its writer was killed: it is not read, and the next one takes its place."""
    assert main(SWEEP) == 0
    path = machine.folder / LOCAL_DIR / "sweep.sweep"
    whole = path.read_bytes()
    (first,) = sweep_plan.read_sweep_plan(path)
    path.write_bytes(whole + whole[:40])
    assert sweep_plan.read_sweep_plan(path) == [first]
    assert main([*SWEEP, "--epochs", "3"]) == 0
    assert path.read_bytes().startswith(whole)
    assert len(sweep_plan.read_sweep_plan(path)) == 2
    path.write_bytes(whole[:40] + b"\n" + whole)  # this was not left by a writer
    with pytest.raises(ValueError, match="Invalid JSON"):
        sweep_plan.read_sweep_plan(path)


def test_it_goes_on_where_it_stopped_and_only_there(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fails = {"2": 1}
    assert main(SWEEP) == 1
    assert len(machine.started) == 6  # a failure does not stop the other runs
    error = capsys.readouterr().err
    assert "3 of 6 runs completed, 3 unsuccessful" in error
    assert "failed: it broke" in error
    machine.fails, machine.started = {}, []
    assert main(SWEEP) == 0
    assert {processes for processes, _ in machine.made_runs()} == {"2"}
    machine.started = []
    assert main(SWEEP) == 0
    assert machine.started == []
    # A set-up with one more option is another set-up.
    assert main([*SWEEP, "--epochs", "3"]) == 0
    assert len(machine.started) == 6


def test_a_divergence_is_a_result_and_said(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fails, machine.status = {"2": 1}, "diverged"
    assert main(SWEEP) == 1
    machine.started = []
    assert main(SWEEP) == 1
    assert machine.started == []
    assert "diverged" in capsys.readouterr().err


@pytest.mark.parametrize("code", [0, 1])
def test_a_run_that_leaves_no_record_failed(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    monkeypatch.setattr(
        "bench.launch.single_run.run_each",
        lambda *_, **__: EndedProcesses([code], interrupted=False),
    )
    assert main([*SWEEP, "--json"]) == 1
    streams = capsys.readouterr()
    runs = json.loads(streams.out)["runs"]
    assert {run["outcome"] for run in runs} == {"failed"}
    assert {run["reason"] for run in runs} == {
        f"exit status {code}" if code else "it left no record that can be read"
    }


def test_an_interruption_ends_it_and_what_was_made_counts(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.fails, machine.status = {"2": 130}, ""
    assert main(SWEEP) == 130
    assert "run the same command again to continue" in capsys.readouterr().err
    made = len(machine.started) - 1
    machine.fails, machine.started = {}, []
    assert main(SWEEP) == 0
    assert len(machine.started) == 6 - made


def test_a_budget_that_is_spent_starts_nothing_more(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SWEEP, "--budget", "0s"]) == 0
    assert machine.started == []
    assert "6 runs left" in capsys.readouterr().err


def test_a_dry_run_prints_the_commands_and_makes_nothing(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*SWEEP, "--dry-run"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert all("run.py --recipe fast --processes" in line for line in lines)
    assert machine.started == []
    assert not (machine.folder / "results").exists()


def test_a_file_and_what_the_command_line_changes_of_it(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'recipe = ["fast", "reference"]\nprocesses = [1, 2, 3]\nthreads = 1\nseeds = 2\n'
    Path("matrix.toml").write_text(text + 'scaling = "weak"\n')
    assert main(["sweep", "matrix.toml", "--processes", "1,2", "--dry-run", "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)["runs"]
    assert len(runs) == 8
    batches = {
        (o[1], o[o.index("--processes") + 1], o[o.index("--batch-size") + 1])
        for o in (run["options"] for run in runs)
    }
    assert batches == {
        (recipe, count, batch)
        for recipe in ("fast", "reference")
        for count, batch in (("1", "128"), ("2", "256"))
    }


names = st.lists(st.sampled_from(["fast", "fast-gpu", "reference"]), min_size=1, unique=True)
numbers = st.lists(st.integers(1, 64), min_size=1, max_size=4, unique=True)


@given(names, numbers, numbers, numbers, st.integers(1, 9), st.integers())
def test_shards_are_disjoint_and_complete(
    recipe: list[str],
    processes: list[int],
    threads: list[int],
    seeds: list[int],
    count: int,
    order_seed: int,
) -> None:
    axes = {"processes": tuple(processes), "threads": tuple(threads), "seeds": tuple(seeds)}
    runs = Matrix(recipe=tuple(recipe), **axes).runs()  # type: ignore[arg-type]
    parts = [
        randomized_blocks(Shard(i, count).select(runs), order_seed) for i in range(1, count + 1)
    ]
    together = [run for part in parts for run in part]
    assert len(together) == len(set(together)) == len(runs)
    assert set(together) == set(runs)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_weak_scaling_changes_batch_and_rate_alone_and_leaves_the_closed_division() -> None:
    twice = FAST.with_batch_size(256)
    assert twice.peak_learning_rate == pytest.approx(2 * FAST.peak_learning_rate)
    adam = REFERENCE.with_batch_size(512)
    assert adam.peak_learning_rate == pytest.approx(2 * REFERENCE.peak_learning_rate)
    assert division(adam) == "open"
    assert REFERENCE.with_batch_size(128) == REFERENCE
    assert {name for name, value in twice.values().items() if value != FAST.values()[name]} == {
        "batch_size",
        "peak_learning_rate",
    }
    assert not any(
        "--batch-size" in run.options
        for run in Matrix(processes=(1, 2), scaling=ScalingMode.STRONG).runs()
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--recipe", "fsat"], "unknown recipe 'fsat'"),
        (["--device", "gpu"], "unknown device 'gpu'"),
        (["--processes", "1,x"], "processes takes whole numbers"),
        (["--processes", "0"], "processes must be at least 1"),
        (["--processes", "2,2"], "processes has a value twice"),
        (["--seeds", "0"], "seeds must be one or more"),
        (["--shard", "3/2"], "shard takes i/n"),
        (["--shard", "9/9"], "has no runs"),
        (["--dry-run", "--foo", "1"], "No such option: --foo"),
        (["--dry-run", "--epochs", "1_0"], "it must be a whole number, not '1_0'"),
        (["--dry-run", "--budget", "-5"], "--budget takes a time, such as 90s"),
        (["--dry-run", "--order-seed", "1" + "0" * 20], "it must be at most 1000000000000000"),
        (["--scaling", "strong"], "scaling needs several process counts"),
        (["--scaling", "odd"], "scaling is strong or weak"),
        (["--scaling", "weak", "--processes", "1,2"], "name the recipe, not auto"),
        (["--budget", "much"], "--budget takes a time"),
        (["--name", "a/b"], "--name takes letters"),
        (["--runs", "3"], "sweep sets --runs itself"),
        (["none.toml"], "cannot read none.toml"),
        (["--epochs", "1", "m.toml"], "put m.toml first"),
    ],
)
def test_bad_input_gets_one_line(
    machine: Machine, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["sweep", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert machine.started == []


@pytest.mark.parametrize("text", ["recipe = [", "colour = 1", "processes = ['1']", "threads = []",
                                  "processes = true", "scaling = 3", "recipe = [1]"])  # fmt: skip
def test_a_matrix_that_is_none_gets_one_line(
    machine: Machine, capsys: pytest.CaptureFixture[str], text: str
) -> None:
    Path("m.toml").write_text(text)
    assert main(["sweep", "m.toml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.slow
def test_a_real_sweep_is_made_reported_and_found_again(tmp_path: Path) -> None:
    """One and two real processes of a short recipe, weak scaling; then nothing is left to do."""
    program = str(Path(sys.executable).with_name("mnist-bench"))
    words = ["sweep", "--recipe", "fast", "--processes", "1,2", "--seeds", "1", "--epochs", "2"]

    def call(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *words],
            cwd=tmp_path,
            env=os.environ | FEWER_IMAGES,
            capture_output=True,
            text=True,
            check=False,
        )

    completed = call(*words, "--scaling", "weak", "--threads", "1", "--json")
    assert completed.returncode == 0, completed.stderr
    assert [run["outcome"] for run in json.loads(completed.stdout)["runs"]] == ["completed"] * 2
    batches = {
        record.setup.processes: record.recipe["batch_size"]
        for _, record in store.read_records([tmp_path / LOCAL_DIR]).records
    }
    assert batches == {1: 128, 2: 256}
    again = call(*words, "--scaling", "weak", "--threads", "1", "--dry-run")
    assert again.stdout == ""
    assert "2 of 2 runs already done" in again.stderr
    shown = call("report", "--scaling")
    assert "weak scaling of fast, peak learning rates 0.6 to 1.2" in shown.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGKILL, marks=pytest.mark.thorough)]
)
def test_a_sweep_that_is_ended_leaves_no_process_and_the_run_its_record(
    tmp_path: Path, number: signal.Signals
) -> None:
    words = ["--recipe", "fast", "--device", "cpu", "--processes", "2", "--seeds", "2"]
    # So many that no run is over before the signal comes.
    words += ["--epochs", "5000"]
    # Only because a checkpoint shows that a run has begun.
    words += ["--checkpoint-every", "1000", "--results-dir", str(tmp_path)]
    with subprocess.Popen(
        [sys.executable, "-m", "bench", "sweep", *words],
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | FEW_IMAGES,
    ) as sweep:
        while not list(tmp_path.glob(".checkpoints/**/*.json")):
            assert sweep.poll() is None
            time.sleep(0.02)
        # The guardian, the supervisor and its two ranks.
        processes = psutil.Process(sweep.pid).children(recursive=True)
        assert len(processes) == 4
        sweep.send_signal(number)
        _, error = sweep.communicate()
    _, alive = psutil.wait_procs(processes, timeout=600)
    assert alive == []
    (record,) = [record for _, record in store.read_records([tmp_path]).records]
    assert (record.status, record.reason) == ("interrupted", "ended by SIGTERM")
    if number == signal.SIGTERM:
        assert sweep.returncode == 130
        assert "interrupted; run the same command again to continue" in error
