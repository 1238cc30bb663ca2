"""Parallel efficiency and Amdahl's law: the numbers, and what the report makes of records."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import pytest
from hypothesis import given, strategies as st

from bench.cli import main
from bench.records import store
from bench.records.schema import RunRecord
from bench.stats.amdahl import Amdahl, efficiency, fit_amdahl, speedup
from mnist_cnn.recipe import FAST
from tests.factories import make_record, noisy_runs

positive = st.floats(1e-6, 1e3)
counts = st.lists(st.integers(1, 256), min_size=3, max_size=6, unique=True)


def law(count: int, serial: float, alone: float) -> float:
    return alone * (serial + (1 - serial) / count)


@given(counts, st.floats(0.0, 1.0), positive)
def test_amdahl_finds_the_fraction_that_made_the_times(
    counts: list[int], serial: float, alone: float
) -> None:
    fit = fit_amdahl({count: [law(count, serial, alone)] * 2 for count in counts})
    assert isinstance(fit, Amdahl)
    # What is told apart are s + (1 - s) / n; where the counts are large, these are nearly equal.
    for count in counts:
        told = fit.alone_seconds / fit.speedup(count)
        assert math.isclose(told, law(count, serial, alone), rel_tol=1e-3)


@given(counts, st.floats(0.05, 0.9), st.floats(1e-3, 1e3))
def test_the_unit_of_time_changes_no_fraction(
    counts: list[int], serial: float, unit: float
) -> None:
    generator = random.Random(1)
    times = {
        count: [law(count, serial, 1.0) * generator.lognormvariate(0, 0.01) for _ in range(4)]
        for count in [1, *(count + 1 for count in counts)]
    }
    one = fit_amdahl(times)
    other = fit_amdahl({count: [unit * time for time in of] for count, of in times.items()})
    assert isinstance(one, Amdahl)
    assert isinstance(other, Amdahl)
    assert math.isclose(one.serial_fraction.value, other.serial_fraction.value, abs_tol=1e-3)


def test_the_interval_of_the_serial_fraction_covers_it_as_often_as_it_says() -> None:
    generator, serial, covered = random.Random(6), 0.1, 0
    for _ in range(300):
        times = {
            count: [law(count, serial, 1.0) * generator.lognormvariate(0, 0.02) for _ in range(3)]
            for count in (1, 2, 4)
        }
        fit = fit_amdahl(times)
        assert isinstance(fit, Amdahl)
        low, high = fit.serial_fraction.low, fit.serial_fraction.high
        assert low is not None
        assert high is not None
        covered += low <= serial <= high
    assert 0.91 <= covered / 300 <= 0.98


@pytest.mark.parametrize("counts", [(), (1,), (1, 2)])
def test_below_three_counts_there_is_no_claim(counts: tuple[int, ...]) -> None:
    fit = fit_amdahl({count: [1.0 / count] * 5 for count in counts})
    assert fit == f"a fit takes 3 different process counts, and there are {len(counts)}"


@given(st.lists(positive, min_size=1, max_size=8), st.integers(1, 8), st.integers(1, 64))
def test_equal_times_are_no_speed_up_and_halves_are_twice(
    times: list[float], fewest: int, factor: int
) -> None:
    same = speedup(times, times)
    assert math.isclose(same.value, 1.0)
    twice = speedup(times, [time / 2 for time in times])
    assert math.isclose(twice.value, 2.0)
    share = efficiency(twice, fewest, 2 * fewest)
    assert math.isclose(share.value, 1.0)
    if share.low is not None and share.high is not None:
        assert share.low <= share.value <= share.high
    assert (share.low is None) == (len(times) < 4)
    assert math.isclose(efficiency(same, fewest, factor * fewest).value, 1 / factor)


# --- Of records


def runs(processes: int, serial: float = 0.2, batch: int = 128, **setup: object) -> list[RunRecord]:
    values = FAST.with_epochs(6).with_batch_size(batch).values()
    return noisy_runs(
        processes,
        count=5,
        slower=law(processes, serial, 1.0),
        label="sweep",
        recipe=values,
        setup={"processes": processes, "threads": 1, **setup},
        environment={"usable_cores": 4},
    )


def kept(folder: Path, *groups: list[RunRecord]) -> str:
    for group in groups:
        for record in group:
            store.save_record(record, folder)
    return str(folder)


def report(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["report", *words]) == 0
    return capsys.readouterr().out


@pytest.mark.slow
def test_strong_scaling_of_records(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = kept(tmp_path / "r", runs(1), runs(2), runs(4), runs(8))
    (study,) = json.loads(report(capsys, folder, "--scaling", "--json"))
    assert study["scaling"] == "strong"
    # How often the interval covers the truth is counted above; these few runs are one draw.
    assert study["serial_fraction"] == pytest.approx(0.2, abs=0.02)
    assert study["serial_fraction_low"] < study["serial_fraction"] < study["serial_fraction_high"]
    alone, two, four, eight = study["points"]
    assert (alone["efficiency"], alone["communication_share"]) == (1.0, 0.0)
    assert two["efficiency_low"] < 1 / 1.2 < two["efficiency_high"]
    assert two["communication_share"] is None
    assert "older than its measurement" in two["communication_share_reason"]
    assert two["time_to_target_seconds_low"] < two["time_to_target_seconds_high"]
    assert two["final_accuracy_low"] < two["final_accuracy_high"]
    assert [point["oversubscribed"] for point in (alone, four, eight)] == [False, False, True]
    table = report(capsys, folder, "--scaling")
    assert "Serial fraction by Amdahl's law: " in table
    assert "more threads than cores" in table
    markdown = report(capsys, folder, "--scaling", "--to", "markdown")
    assert markdown.count("\n| ") == 6
    page = report(capsys, folder, "--to", "html")
    assert 'id="scaling"' in page
    assert "serial fraction" in page


def test_what_makes_times_doubtful_is_said_of_the_points_that_it_concerns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    busy = {"elapsed_seconds": 10.0, "own_seconds": 9.0, "busy_seconds": 29.0}
    disturbed = [
        record.model_copy(update={"load": record.load.model_copy(update=busy)})
        for record in runs(2)
    ]
    folder = kept(tmp_path / "r", runs(1)[:1], disturbed)
    for options in ([], ["--to", "markdown"]):
        table = " ".join(report(capsys, folder, "--scaling", *options).split())
        assert "! 2 processes: the machine did other work too" in table
        assert "! 1 process: fewer than 3 completed runs" in table


def test_weak_scaling_keeps_each_batch_and_says_the_rates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(tmp_path / "r", runs(1), runs(2, batch=256), runs(4, batch=512))
    (study,) = json.loads(report(capsys, folder, "--scaling", "--json"))
    assert study["scaling"] == "weak"
    assert "peak learning rates 0.6 to 2.4" in study["name"]
    assert study["serial_fraction"] is None
    assert "stays as it is" in study["serial_fraction_reason"]
    assert [point["global_batch_size"] for point in study["points"]] == [128, 256, 512]


def test_the_communication_share_is_of_all_reduces_by_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    timed = [record.model_copy(update={"all_reduce_seconds": 1e-4}) for record in runs(2)]
    steps = sum(epoch.steps for epoch in timed[0].epochs)
    spent = sorted(
        sum(lap.seconds for lap in record.laps if lap.kind == "train") for record in timed
    )
    (study,) = json.loads(report(capsys, kept(tmp_path, runs(1), timed), "--scaling", "--json"))
    alone, two = study["points"]
    assert (alone["communication_share"], alone["communication_share_reason"]) == (0.0, None)
    assert two["communication_share"] == pytest.approx(1e-4 * steps / spent[2])
    assert two["communication_share_reason"] is None


def test_machines_are_another_study_than_processes_of_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Two on one machine are not pooled with one on each of two, which a network joins."""
    folder = kept(
        tmp_path, runs(1), runs(2), runs(2, serial=0.6, machines=2), runs(4, serial=0.6, machines=4)
    )
    found = json.loads(report(capsys, folder, "--scaling", "--json"))
    one, several = sorted(found, key=lambda study: len(study["points"]))
    assert [point["processes"] for point in one["points"]] == [1, 2]
    assert [point["processes"] for point in several["points"]] == [1, 2, 4]
    assert "machines of 1 process" in several["name"]
    assert "machines" not in one["name"]
    assert several["points"][1]["speedup"] < one["points"][1]["speedup"]


@pytest.mark.slow
def test_one_set_of_runs_alone_may_begin_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = kept(tmp_path / "r", runs(1), runs(2), runs(2, batch=256))
    found = json.loads(report(capsys, folder, "--scaling", "--json"))
    assert [study["scaling"] for study in found] == ["strong", "weak"]
    assert "there are 2" in found[0]["serial_fraction_reason"]
    assert 'id="scaling"' in report(capsys, folder, "--to", "html")


def test_a_hostile_label_comes_out_inert(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    label = "\x1b[31m`<script>alert(1)</script>|"
    both = [
        [make_record(label=label, setup={"processes": count, "threads": 1}, seed=seed)]
        for count in (1, 2)
        for seed in (0, 1)
    ]
    folder = kept(tmp_path / "r", *both)
    assert "\x1b[31m" not in report(capsys, folder, "--scaling")
    assert "\x1b" not in report(capsys, folder, "--scaling", "--to", "markdown")
    assert "<script>alert" not in report(capsys, folder, "--to", "html")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "csv"], "--scaling is for the terminal"),
        (["--per", "run"], "--scaling has its own table"),
        ([], "no recipe was measured with several process counts"),
    ],
)
def test_bad_input_gets_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    folder = kept(tmp_path / "r", runs(1))
    assert main(["report", folder, "--scaling", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
