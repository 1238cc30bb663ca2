"""Runs made again: losses are compared exactly where that is promised; no more is claimed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.launch.rerun import options_of, rerun
from bench.machine.repository import History
from bench.records.record_file import to_json
from bench.records.schema import RunRecord
from bench.verify import checks
from bench.verify.checks import CheckOutcome, CheckResult
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import FAST
from tests.commands import BIN, launch
from tests.factories import make_record, saved
from tests.stand_ins import FEWER_IMAGES

EXACT = {"kernels": "avx512-bf16"}


def again(record: RunRecord, made: RunRecord | None, path: Path) -> CheckResult:
    """The result where the repetition of a record is `made`."""
    saved(path, [record])
    folder = checks.read_folder(path, History(path), frozenset())
    return rerun(folder, 5, lambda _: None, lambda _: made)


def repeated(record: RunRecord, loss: float = 1.0, seconds: float = 1.0) -> RunRecord:
    """The same run with all losses and times multiplied."""
    values = json.loads(to_json(record)) | {"run_id": "f" * 32}
    for epoch in values["epochs"]:
        epoch["loss"] *= loss
    for lap in values["laps"]:
        lap["seconds"] *= seconds
    return RunRecord.model_validate(values)


def texts(result: CheckResult) -> str:
    return "\n".join((*(finding.text for finding in result.findings), *result.notes))


def test_equal_losses_pass_and_the_time_shows_nothing_without_a_floor(tmp_path: Path) -> None:
    record = make_record(setup=EXACT)
    result = again(record, repeated(record, seconds=2), tmp_path)
    assert result.outcome is CheckOutcome.PASS
    assert "losses of 6 epochs compared exactly" in texts(result)
    assert "2.00 times as long, which shows nothing" in texts(result)


def test_another_loss_fails_where_equal_ones_are_promised(tmp_path: Path) -> None:
    record = make_record(setup=EXACT)
    result = again(record, repeated(record, loss=1.000001), tmp_path)
    assert result.outcome is CheckOutcome.FAIL
    assert "its training loss of epoch 1 is" in texts(result)


@pytest.mark.parametrize(
    "change",
    [
        {"setup": {**EXACT, "kernels": "amx"}},
        {"setup": EXACT, "environment": {"commit": "f" * 40}},
        {"setup": EXACT, "environment": {"cpu": "Another"}},
        {"setup": EXACT, "environment": {"dirty": True}},
    ],
)
def test_where_losses_may_differ_the_accuracy_is_compared(
    change: dict[str, Any], tmp_path: Path
) -> None:
    result = again(make_record(setup=EXACT), repeated(make_record(**change), 1.1), tmp_path)
    assert result.outcome is CheckOutcome.PASS
    assert "do not promise equal losses" in texts(result)


def test_an_accuracy_far_from_the_record_s_is_found(tmp_path: Path) -> None:
    epochs = FAST.epochs
    record = make_record(accuracies=[0.9946] * epochs)
    worse = make_record(accuracies=[0.9906] * epochs)
    result = again(record, worse, tmp_path)
    assert result.outcome is CheckOutcome.FAIL
    assert "99.46% right, but 99.06% when it was run again" in texts(result)
    short = again(make_record(), make_record(accuracies=[0.98] * 6), tmp_path / "short")
    assert short.outcome is CheckOutcome.UNKNOWN  # of a shorter schedule little is known


def test_what_cannot_be_run_again_is_unknown(tmp_path: Path) -> None:
    assert again(make_record(), None, tmp_path / "a").outcome is CheckOutcome.UNKNOWN
    tuned = make_record(recipe={"weight_decay": 0.5})
    result = again(tuned, tuned, tmp_path / "b")
    assert result.outcome is CheckOutcome.UNKNOWN
    assert "weight_decay of this checkout's fast is 0.0003" in texts(result)
    failed = make_record(status="failed", reason="boom")
    assert again(make_record(), failed, tmp_path / "c").outcome is CheckOutcome.UNKNOWN
    with pytest.raises(UsageError, match="no completed run"):
        again(failed, None, tmp_path / "d")


def test_the_options_repeat_the_run() -> None:
    words = options_of(make_record(seed=7, setup={"processes": 2}))
    line = " ".join(words)
    for text in ("--seed 7", "--recipe fast", "--epochs 6", "--threads 2", "--processes 2"):
        assert text in line


def test_each_run_is_made_once(tmp_path: Path) -> None:
    runs = [make_record(seed=seed, benchmark_id=f"{seed:032x}") for seed in range(4)]
    saved(tmp_path, runs)
    made: list[Sequence[str]] = []

    def run_again(options: Sequence[str]) -> RunRecord | None:
        made.append(options)
        return None

    folder = checks.read_folder(tmp_path, History(tmp_path), frozenset())
    rerun(folder, 3, lambda _: None, run_again)
    assert len({tuple(options) for options in made}) == 3


def test_a_negative_number_is_bad_input(tmp_path: Path) -> None:
    assert main(["verify", str(tmp_path), "--rerun", "-1"]) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("mnist_data_dir")
def test_a_run_of_this_checkout_comes_out_the_same(tmp_path: Path) -> None:
    options = ["--recipe", "fast", "--epochs", "2", "--threads", "1", "--device", "cpu", "--quiet"]
    made = launch(
        [BIN / "mnist-bench", "run", *options, "--runs", "1", "--results-dir", tmp_path],
        **FEWER_IMAGES,
    )
    assert made.returncode == 0, made.stderr
    done = launch(
        [BIN / "mnist-bench", "verify", tmp_path, "--rerun", "1", "--json"], **FEWER_IMAGES
    )
    (result,) = (c for c in json.loads(done.stdout)["checks"] if c["name"] == "rerun")
    assert result["outcome"] == "pass", done.stdout
    assert "compared" in result["notes"][0]
