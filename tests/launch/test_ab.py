"""`mnist-bench ab`: interleaved runs, each in its own process; and the noise floor."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import pytest

from bench.cli import main
from bench.launch.ab import LOOKS
from bench.launch.supervisor import EndedProcesses
from bench.records import sidecars, store
from bench.records.folders import LOCAL_DIR
from bench.records.sidecars import NoiseFloor
from mnist_cnn.errors import UsageError
from tests.factories import make_record, noisy_runs, saved
from tests.stand_ins import FEWER_IMAGES

FLOOR = NoiseFloor(
    case="fast, cpu, 1 process, 2 threads, bf16",
    relative=0.25,
    rounds=8,
    measured_at=datetime(2026, 11, 25, tzinfo=UTC),
    device_name="AMD EPYC",
    commit=None,
    torch="2.15.0",
)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Runs that take no time: they save what `run` would save, slower with one thread."""
    monkeypatch.chdir(tmp_path)
    made = 0

    def run(words: list[str], *_: object, **__: object) -> EndedProcesses:
        nonlocal made
        made += 1
        options = {a: b for a, b in pairwise(words) if a.startswith("--")}
        slower = 1.3 if options.get("--threads") == "1" else 1.0
        record = make_record(
            label=options["--label"],
            seed=int(options["--seed"]),
            train_seconds=6.5 * slower * (1 + 0.004 * ((7 * made) % 5)),
            started_at=datetime.now(UTC),
        )
        store.save_record(record, Path(options["--results-dir"]))
        return EndedProcesses([0], interrupted=False)

    monkeypatch.setattr("bench.launch.single_run.run_each", run)
    return tmp_path


def test_it_stops_at_the_first_look_that_is_clear(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ab", "--recipe", "fast", "--a", "--threads 2", "--b", "--threads 1"]
    assert main(words) == 0
    streams = capsys.readouterr()
    assert "worse" in streams.out
    assert "interleaved" in streams.out
    assert streams.err.count("round") == 2 * LOOKS[0]
    assert f"round 1 of at most {LOOKS[-1]}, " in streams.err
    *_, again = streams.err.splitlines()
    words = shlex.split(again.removeprefix("to compare these runs again: mnist-bench "))
    assert main(words) == 0
    assert "interleaved" in capsys.readouterr().out
    assert not list(machine.rglob("*.noise"))


def test_equal_sides_measure_the_noise_floor(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", "--recipe", "fast"]) == 0
    shown = capsys.readouterr().out
    assert "noise floor:" in shown
    assert "measure it again in another session" in shown
    (floor,) = sidecars.read_noise_floors([machine / LOCAL_DIR])
    assert floor.seconds_per_image == pytest.approx(6.5 / 60_000, rel=0.02)
    assert floor.started_at is not None
    assert floor.started_at < floor.measured_at
    assert 0 < floor.relative < 0.03
    assert floor.rounds in LOOKS


def test_a_second_session_shows_the_spread_between_them(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", "--recipe", "fast"]) == 0
    (floor,) = sidecars.read_noise_floors([machine / LOCAL_DIR])
    assert floor.seconds_per_image is not None
    assert floor.started_at is not None
    yesterday = {
        "started_at": floor.started_at - timedelta(days=1),
        "measured_at": floor.measured_at - timedelta(days=1),
        "seconds_per_image": 1.08 * floor.seconds_per_image,
    }
    sidecars.write_sidecar(floor.model_copy(update=yesterday), machine / LOCAL_DIR)
    capsys.readouterr()
    assert main(["ab", "--recipe", "fast", "--name", "again"]) == 0
    assert "% over 2 sessions" in capsys.readouterr().out


def test_too_few_rounds_for_an_interval_are_said_before_they_are_run(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["ab", "--recipe", "fast", "--b", "--threads 1", "--rounds"]
    for rounds, has_interval in ((5, False), (6, True)):
        assert main([*words, str(rounds), "--name", f"of-{rounds}"]) == 0
        streams = capsys.readouterr()
        warning = f"--rounds {rounds}: times have a 95 % interval from 6 rounds on"
        assert streams.err.startswith(warning) is not has_interval
        row = next(line for line in streams.out.splitlines() if line.startswith("time an image"))
        assert (" to " in row) is has_interval


def test_the_order_within_a_round_is_chance(
    machine: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["ab", "--rounds", "18"]) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("round")]
    first = {line[-1] for line in lines[::2]}
    assert first == {"a", "b"}
    assert all(
        {first[-1], second[-1]} == {"a", "b"}
        for first, second in zip(lines[::2], lines[1::2], strict=True)
    )
    assert len(list(machine.rglob("*.json"))) == 36


def test_the_gate_does_not_fire_below_the_noise_floor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = (
        saved(tmp_path / "a", noisy_runs(0)),
        saved(tmp_path / "b", noisy_runs(1, slower=1.15)),
    )
    words = ["compare", base, new, "--fail-if-slower", "5%"]
    assert main(words) == 1
    sidecars.write_sidecar(FLOOR, Path(base))
    assert main(words) == 2
    assert "slower than allowed, but within this machine's noise" in capsys.readouterr().out
    faster = saved(tmp_path / "d", noisy_runs(2, slower=0.9))
    assert main(["compare", base, faster, "--fail-if-slower", "5%"]) == 0
    other = FLOOR.model_copy(update={"device_name": "another", "measured_at": datetime.now(UTC)})
    sidecars.write_sidecar(other, Path(base))
    assert main(words) == 2
    lower = FLOOR.model_copy(update={"relative": 0.02, "measured_at": datetime.now(UTC)})
    sidecars.write_sidecar(lower, Path(base))
    assert main(words) == 1


def test_the_noise_floor_is_that_of_all_kinds_of_a_set_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one_epoch = {**noisy_runs(0)[0].recipe, "epochs": 1}
    sides = [
        saved(
            tmp_path / f"{number}",
            [
                *noisy_runs(number, slower=1 + 0.15 * number),
                *noisy_runs(number + 2, slower=1 + 0.15 * number, recipe=one_epoch),
            ],
        )
        for number in (0, 1)
    ]
    words = ["compare", *sides, "--fail-if-slower", "5%"]
    assert main(words) == 1
    sidecars.write_sidecar(FLOOR, Path(sides[0]))
    capsys.readouterr()
    assert main(words) == 2
    assert capsys.readouterr().out.count("slower than allowed, but within this machine's") == 2


def test_a_floor_that_cannot_be_understood_stops_the_gate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = (
        saved(tmp_path / "a", noisy_runs(0)),
        saved(tmp_path / "b", noisy_runs(1)),
    )
    Path(base, "broken.noise").write_text("{")
    assert main(["compare", base, new, "--fail-if-slower", "5%"]) == 2
    assert "is no noise floor" in capsys.readouterr().err
    with pytest.raises(UsageError):
        sidecars.read_noise_floors([Path(base)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--a", '"'], "No closing quotation"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--a", "--kernal torch"], "No such option: --kernal"),
        (["--b", "--runs-at-a-time"], "No such option: --runs-at-a-time"),
        (["--wanted", "0"], "--wanted must lie between 0 % and 100 %"),
        (["--wanted", "much"], "--wanted takes a number, such as 5%"),
        (["--runs", "3"], "ab sets --runs itself"),
        (["--b", "--seed=7"], "ab sets --seed itself"),
    ],
)
def test_bad_input_gets_one_line(
    capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["ab", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.slow
def test_a_side_that_cannot_run_ends_it_with_its_own_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["ab", "--recipe", "fsat"]) == 2
    error = capfd.readouterr().err
    assert "unknown recipe 'fsat'" in error
    assert "round 1" in error
    assert "could not be run" in error


def test_a_side_that_leaves_no_record_is_noticed_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For example if its options only print something."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        "bench.launch.single_run.run_each", lambda *_, **__: EndedProcesses([0], interrupted=False)
    )
    assert main(["ab", "--a=--dry-run"]) == 2
    error = capsys.readouterr().err
    assert "left no record" in error
    assert error.count("round") == 1


@pytest.mark.slow
def test_real_runs_by_turns(tmp_path: Path) -> None:
    """A real round of a short recipe: records of both labels, and a table."""
    words = ["ab", "--recipe", "fast", "--epochs", "2", "--rounds", "1", "--b", "--threads 1"]
    completed = subprocess.run(
        [str(Path(sys.executable).with_name("mnist-bench")), *words],
        cwd=tmp_path,
        env=os.environ | FEWER_IMAGES,
        capture_output=True,
        text=True,
        check=False,
    )
    assert completed.returncode == 0, completed.stderr
    labels = [r.label for _, r in store.read_records([tmp_path / LOCAL_DIR]).records]
    assert sorted(str(label).split()[0] for label in labels) == ["ab-a", "ab-b"]
    assert "time an image" in completed.stdout
