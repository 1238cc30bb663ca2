"""A benchmark that is lost goes on where it was, to the same curve, and says so.

Real processes, ended by SIGKILL at real places (`tests/stand_ins/resume_driver.py`).
"""

from __future__ import annotations

import hashlib
import io
import json
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from bench.analysis import metrics, result_warnings
from bench.analysis.result_warnings import ResultWarning
from bench.cli import main
from bench.records import store
from bench.records.schema import LapKind, RunRecord, Status
from tests.commands import BIN, ROOT, clean_environment
from tests.factories import make_record
from tests.shared import made_once

DRIVER = ROOT / "tests" / "stand_ins" / "resume_driver.py"
COMMON = ("--recipe", "tiny", "--device", "cpu", "--threads", "1", "--quiet")
KEEPING = ("--checkpoint-every", "1")
PLACES = ("init", "first-step", "mid-epoch", "evaluation", "checkpoint", "save")
IN_CI = ((1, "save"),)
"""The ranks and places of which every run of CI tries to kill."""
SUPERVISED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from bench.launch.supervisor import supervise
sys.exit(supervise([sys.executable, {str(DRIVER)!r}, *sys.argv[1:]], 2, threads=1))
"""
ONE: tuple[str, ...] = (sys.executable, str(DRIVER))
TWO: tuple[str, ...] = (sys.executable, "-c", SUPERVISED)


def measure(
    start: Sequence[str], results: Path, *options: str, die: str | None = None
) -> subprocess.CompletedProcess[str]:
    """`mnist-bench run` of the tiny recipe; it ends by itself, and leaves nobody behind."""
    done = subprocess.run(
        [*start, "run", *COMMON, "--results-dir", str(results), *options],
        cwd=ROOT,
        env=clean_environment() | ({} if die is None else {"DIE": die}),
        capture_output=True,
        text=True,
        check=False,
    )
    left = [
        process.pid
        for process in psutil.process_iter(["cmdline", "status"])
        if str(results) in (process.info["cmdline"] or [])
        and process.info["status"] != psutil.STATUS_ZOMBIE
    ]
    assert not left
    return done


def records(results: Path) -> list[RunRecord]:
    found = store.read_records([results])
    assert not found.problems
    return sorted((r for _, r in found.records), key=lambda r: (r.run_index, r.started_utc))


def curve(record: RunRecord) -> tuple[Any, ...]:
    """All that was trained to, to the last bit."""
    return record.seed, record.epochs, record.evaluations, record.mistakes


def files(results: Path) -> dict[Path, bytes]:
    return {
        path: path.read_bytes() for path in results.rglob("*.json") if ".check" not in str(path)
    }


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> list[RunRecord]:
    """Two runs by two ranks, without a checkpoint."""

    def make(folder: Path) -> None:
        done = measure(TWO, folder, "--runs", "2")
        assert done.returncode == 0, done.stderr

    return records(made_once(tmp_path_factory, "uninterrupted", make))


@pytest.mark.slow
@pytest.mark.usefixtures("mnist_data_dir")
@pytest.mark.parametrize(
    ("rank", "place"),
    [
        pytest.param(rank, place, marks=[] if (rank, place) in IN_CI else pytest.mark.thorough)
        for rank in (0, 1)
        for place in PLACES
    ],
)
def test_any_rank_may_be_killed_anywhere(
    rank: int, place: str, tmp_path: Path, uninterrupted: list[RunRecord]
) -> None:
    lost = measure(TWO, tmp_path, "--runs", "2", *KEEPING, die=f"{rank} {place} 2")
    assert lost.returncode != 0
    before = files(tmp_path)
    first, *attempts = records(tmp_path)
    assert (first.run_index, first.outcome) == (1, "completed")
    # Whoever lived to write a record of the second run said how it ended.
    assert {attempt.run_index for attempt in attempts} <= {2}
    saved = rank == 1 and place == "save"
    allowed = {Status.COMPLETED} if saved else {Status.FAILED, Status.INTERRUPTED}
    assert {attempt.status for attempt in attempts} <= allowed

    resumed = measure(TWO, tmp_path, "--runs", "2", "--resume")
    if saved and "nothing to resume" in resumed.stderr:
        # The first rank had all it wanted of the other, and was done.
        assert resumed.returncode == 2
    else:
        assert resumed.returncode == 0, resumed.stderr
    after = files(tmp_path)
    assert before.items() <= after.items()
    assert len(after) == len(before) + (not saved)
    whole = [record for record in records(tmp_path) if record.status is Status.COMPLETED]
    assert [curve(record) for record in whole] == [curve(record) for record in uninterrupted]
    assert [record.resumed for record in whole] == [0, 0 if saved else 1]
    assert len({record.benchmark_id for record in records(tmp_path)}) == 1
    assert not (tmp_path / ".checkpoints").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("mnist_data_dir")
@pytest.mark.parametrize("kernels", ["auto", pytest.param("torch", marks=pytest.mark.thorough)])
def test_one_process_goes_on_to_the_same_curve(kernels: str, tmp_path: Path) -> None:
    options = ("--runs", "1", "--kernels", kernels)
    assert measure(ONE, tmp_path / "whole", *options).returncode == 0
    lost = measure(ONE, tmp_path / "lost", *options, *KEEPING, die="0 evaluation 1")
    assert lost.returncode == -signal.SIGKILL
    assert measure(ONE, tmp_path / "lost", *options, "--resume").returncode == 0
    (whole,), (resumed,) = records(tmp_path / "whole"), records(tmp_path / "lost")
    assert curve(resumed) == curve(whole)
    kinds = [lap.kind for lap in resumed.laps]
    assert kinds.count(LapKind.RESUME) == 1
    assert kinds.count(LapKind.CHECKPOINT) == 2
    assert resumed.outcome == "resumed"
    assert metrics.completed([resumed]) == []


@pytest.mark.thorough
@pytest.mark.usefixtures("mnist_data_dir")
def test_a_damaged_checkpoint_is_refused_and_the_one_before_taken_if_asked(tmp_path: Path) -> None:
    results = tmp_path / "results"
    assert measure(ONE, tmp_path / "whole", "--runs", "1").returncode == 0
    lost = measure(ONE, results, "--runs", "1", *KEEPING, die="0 save 1")
    assert lost.returncode == -signal.SIGKILL
    # The same command again would throw away what there is.
    again = measure(ONE, results, "--runs", "1", *KEEPING)
    assert again.returncode == 2
    assert "an unfinished benchmark is kept" in again.stderr
    for option, number, complaint in (
        ("--seed", "7", "its seed is 0, here it is 7"),
        ("--epochs", "5", "its recipe.epochs is 3, here it is 5"),
    ):
        other = measure(ONE, results, "--runs", "1", "--resume", option, number)
        assert other.returncode == 2
        assert complaint in other.stderr
    newest = results / ".checkpoints" / "seed-0-epoch-2-rank-0.pt"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    refused = measure(ONE, results, "--runs", "1", "--resume")
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "epoch 2" in refused.stderr
    assert "add --fall-back to resume from that of epoch 1" in refused.stderr
    done = measure(ONE, results, "--runs", "1", "--resume", "--fall-back")
    assert done.returncode == 0, done.stderr
    assert "resuming from that of epoch 1" in done.stderr
    (whole,), (resumed,) = records(tmp_path / "whole"), records(results)
    assert curve(resumed) == curve(whole)


@pytest.mark.thorough
@pytest.mark.usefixtures("mnist_data_dir")
def test_a_launcher_that_starts_all_ranks_anew_is_recorded(
    tmp_path: Path, uninterrupted: list[RunRecord]
) -> None:
    torchrun = (
        str(BIN / "torchrun"),
        "--standalone",
        "--nproc_per_node=2",
        "--max-restarts=1",
        str(DRIVER),
    )
    done = measure(torchrun, tmp_path, "--runs", "1", *KEEPING, die="1 evaluation 1")
    assert done.returncode == 0, done.stderr
    last = records(tmp_path)[-1]
    assert (last.status, last.resumed, last.restarted) == (Status.COMPLETED, 1, 1)
    assert curve(last) == curve(uninterrupted[0])


# --- What it takes no training to know


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint-every", "0"], "--checkpoint-every must be at least 1 epoch, not 0"),
        (["--checkpoint-every", "1", "--no-save"], "--no-save leaves no records to resume from"),
        (["--resume", "--profile", "x.json"], "--profile leaves no records to resume from"),
        (["--fall-back"], "--fall-back is for --checkpoint-every or --resume"),
        (["--fall-back", "--checkpoint-every", "1"], "--fall-back is for --resume"),
        (["--checkpoint-dir", "x"], "--checkpoint-dir is for --checkpoint-every or --resume"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["run", "--recipe", "fast", *options]) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def forge(kept: Path, change: Callable[[dict[str, Any]], object], checkpoint: object) -> None:
    """Change the kept state, and the newest checkpoint, with the right sums."""
    text = (kept / "benchmark.json").read_bytes().partition(b"\n")[2]
    values = json.loads(text)
    if checkpoint is not None:
        file = io.BytesIO()
        torch.save(checkpoint, file)
        content = checkpoint if isinstance(checkpoint, bytes) else file.getvalue()
        (kept / "seed-0-epoch-2-rank-0.pt").write_bytes(content)
        values["current"]["digests"] = [hashlib.sha256(content).hexdigest()]
    change(values)
    forged = json.dumps(values).encode()
    digest = hashlib.sha256(forged).hexdigest().encode()
    (kept / "benchmark.json").write_bytes(digest + b"\n" + forged)


@pytest.mark.thorough
@pytest.mark.usefixtures("mnist_data_dir")
def test_a_forged_state_with_the_right_sums_is_one_line(tmp_path: Path) -> None:
    results = tmp_path / "results"
    measure(ONE, results, "--runs", "1", *KEEPING, die="0 save 1")
    kept = results / ".checkpoints"
    before = {path: path.read_bytes() for path in kept.iterdir()}

    def nothing(_: dict[str, Any]) -> None:
        pass

    forgeries: list[tuple[Callable[[dict[str, Any]], object], object, str]] = [
        (nothing, b"no checkpoint at all", "cannot continue from seed-0-epoch-2-rank-0.pt"),
        (nothing, {}, "cannot continue from seed-0-epoch-2-rank-0.pt"),
        (nothing, {"engine": {"model": 7}, "losses": 1}, "cannot continue from"),
        (lambda values: values.update(every=0), None, "is damaged"),
        (lambda values: values["current"].update(epoch=10**9), None, "no state of this benchmark"),
        (lambda values: values["current"].update(seed=5), None, "no state of this benchmark"),
        (lambda values: values["current"].update(epochs=[]), None, "no state of this benchmark"),
    ]
    for change, checkpoint, complaint in forgeries:
        for path, content in before.items():
            path.write_bytes(content)
        forge(kept, change, checkpoint)
        refused = measure(ONE, results, "--runs", "1", "--resume")
        assert refused.returncode == 2, refused.stderr
        assert refused.stderr.count("\n") == 1, refused.stderr
        assert complaint in refused.stderr
        assert records(results) == []


@pytest.mark.usefixtures("fresh_accelerate", "mnist_data_dir")
def test_nothing_to_resume_is_said(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    options = ["--recipe", "fast", "--device", "cpu", "--results-dir", str(tmp_path)]
    assert main(["run", *options, "--resume", "--quiet"]) == 2
    assert "nothing to resume in" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_a_run_not_made_in_one_go_enters_nothing() -> None:
    clean = make_record()
    for record, outcome in (
        (make_record(resumed=1), "resumed"),
        (make_record(restarted=1), "restarted"),
    ):
        assert record.outcome == outcome
        assert metrics.completed([clean, record]) == [clean]
        assert ResultWarning.NOT_IN_ONE_GO in result_warnings.run_warnings(record)
    assert make_record(resumed=1, status="failed", reason="x").outcome == "failed"
    assert ResultWarning.NOT_IN_ONE_GO not in result_warnings.run_warnings(clean)


def test_older_records_know_of_neither() -> None:
    values = json.loads(make_record().model_dump_json())
    del values["resumed"], values["restarted"]
    values["schema_version"] = 5
    assert RunRecord.model_validate(values).resumed == 0
    with pytest.raises(ValueError, match="resumed is not a field of schema_version 5"):
        RunRecord.model_validate(values | {"resumed": 1})
    laps = [*values["laps"], values["laps"][-1] | {"kind": "checkpoint"}]
    with pytest.raises(ValueError, match="no laps of kind checkpoint"):
        RunRecord.model_validate(values | {"laps": laps})
