"""`run --track`: what a tracker was given is what its own reader gives back."""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.cli import main
from bench.records import store
from bench.records.schema import LapKind, RunRecord
from bench.report import trackers
from bench.report.tracker_logging import mlflow_store
from mnist_cnn.errors import UsageError
from mnist_cnn.optim import learning_rates
from mnist_cnn.recipe import REFERENCE, Recipe
from mnist_cnn.sampler import steps_in_epoch
from tests.stand_ins import FEWER_IMAGES

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "results" / "intel-xeon-2-cores"
TRACKIO = """
import json
from trackio import Api, SQLiteStorage

print(json.dumps({
    run.name: {"config": run.config, "logs": SQLiteStorage.get_logs("mnist-bench", run.name)}
    for run in Api().runs("mnist-bench")
}))
"""
MLFLOW = """
import json, sys
import mlflow

mlflow.set_tracking_uri(sys.argv[1])
client = mlflow.MlflowClient()
[experiment] = client.search_experiments(filter_string="name = 'mnist-bench'")
print(json.dumps({
    run.info.run_name: {
        "status": run.info.status,
        "artifacts": run.info.artifact_uri,
        "config": run.data.params,
        "curves": {
            name: {
                point.step: point.value
                for point in client.get_metric_history(run.info.run_id, name)
            }
            for name in run.data.metrics
        },
    }
    for run in client.search_runs([experiment.experiment_id])
}))
"""
LOG = """
import sys
from pathlib import Path
from bench.records import store
from bench.report.tracker_logging import log_runs
from mnist_cnn.recipe import REFERENCE, Recipe

names, *paths = sys.argv[1:]
folder, *files = map(Path, paths)
records = [record for _, record in store.read_records(files).records]
for name in names.split():
    log_runs(name, records, Recipe(**{**REFERENCE.values(), **records[0].recipe}), folder)
"""


@pytest.fixture(scope="module")
def runs() -> list[tuple[Path, RunRecord]]:
    """Two real runs of one recipe."""
    found = store.read_records([MEASURED]).records
    return [(path, record) for path, record in found if record.recipe["name"] == "fast"][:2]


@pytest.fixture(scope="module")
def tracked(tmp_path_factory: pytest.TempPathFactory, runs: list[tuple[Path, RunRecord]]) -> Path:
    """What both trackers made of them: in a process of its own, whose environment they change.

    Its environment names servers to which nothing may go, and a run to go on with.
    """
    folder = tmp_path_factory.mktemp("tracked")
    misleading = {
        "TRACKIO_SPACE_ID": "someone/else",
        "TRACKIO_SERVER_URL": "http://localhost:9",
        "TRACKIO_DIR": str(folder / "elsewhere"),
    }
    subprocess.run(
        [sys.executable, "-c", LOG, "tensorboard trackio", folder, *(path for path, _ in runs)],
        cwd=ROOT,
        env=os.environ | misleading,
        check=True,
        capture_output=True,
    )
    assert sorted(path.name for path in folder.iterdir()) == ["tensorboard", "trackio"]
    return folder


def expected(record: RunRecord) -> dict[str, dict[int, float]]:
    """By name and epoch, computed from the record itself."""
    values: dict[str, Any] = {**REFERENCE.values(), **record.recipe}  # older ones lack fields
    recipe = Recipe(**values)
    steps = [
        steps_in_epoch(recipe, recipe.train_images, epoch) for epoch in range(1, recipe.epochs + 1)
    ]
    rates = learning_rates(recipe, sum(steps))
    laps = {lap.epoch: lap.seconds for lap in record.laps if lap.kind is LapKind.TRAIN}
    return {
        "train/loss": {one.epoch: one.loss for one in record.epochs if one.loss is not None},
        "train/learning_rate": {
            epoch: float(rates[sum(steps[:epoch]) - 1]) for epoch in range(1, recipe.epochs + 1)
        },
        "train/images_per_second": {
            one.epoch: one.samples / laps[one.epoch] for one in record.epochs
        },
        "evaluation/accuracy": {one.epoch: one.accuracy for one in record.evaluations},
        "summary/final_accuracy": {record.epochs[-1].epoch: record.final_accuracy or math.nan},
    }


@pytest.mark.slow
def test_tensorboard_reads_it_back(tracked: Path, runs: list[tuple[Path, RunRecord]]) -> None:
    for path, record in runs:
        events = EventAccumulator(str(tracked / "tensorboard" / path.stem))
        events.Reload()
        for name, values in expected(record).items():
            read = {one.step: one.value for one in events.Scalars(name)}
            assert read == pytest.approx(values, rel=1e-6), name  # it stores float32


@pytest.mark.slow
def test_trackio_reads_it_back(tracked: Path, runs: list[tuple[Path, RunRecord]]) -> None:
    done = subprocess.run(
        [sys.executable, "-c", TRACKIO],
        env=os.environ | {"TRACKIO_DIR": str(tracked / "trackio")},
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert set(found) == {path.stem for path, _ in runs}
    for path, record in runs:
        logs = found[path.stem]["logs"]
        for name, values in expected(record).items():
            assert {log["step"]: log[name] for log in logs if name in log} == values, name
        of = found[path.stem]["config"]
        assert of["run_id"] == record.run_id
        assert of["setup.precision"] == record.setup.precision
        assert of["recipe.batch_size"] == record.recipe["batch_size"]


@pytest.mark.slow
def test_mlflow_reads_it_back(tmp_path: Path, runs: list[tuple[Path, RunRecord]]) -> None:
    """Where it is installed: `./scripts/setup` does not install it."""
    pytest.importorskip("mlflow")
    folder, started = tmp_path / "two words", tmp_path / "started here"
    started.mkdir()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), *sys.path[1:]])}
    misleading = {"MLFLOW_TRACKING_URI": "http://localhost:9", "MLFLOW_RUN_ID": "0" * 32}
    subprocess.run(
        [sys.executable, "-c", LOG, "mlflow", folder, *(path for path, _ in runs)],
        cwd=started,
        env=environment | misleading,
        check=True,
        capture_output=True,
    )
    assert not list(started.iterdir())
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["mlflow.db"]
    done = subprocess.run(
        [sys.executable, "-c", MLFLOW, f"sqlite:///{folder}/mlflow/mlflow.db"],
        cwd=started,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(done.stdout)
    assert set(found) == {path.stem for path, _ in runs}
    for path, record in runs:
        run = found[path.stem]
        assert run["status"] == "FINISHED"
        assert str(folder) in run["artifacts"]
        assert run["config"]["run_id"] == record.run_id
        for name, values in expected(record).items():
            assert {int(step): one for step, one in run["curves"][name].items()} == values, name


def test_what_mlflow_would_misread_is_refused() -> None:
    assert mlflow_store(Path("/a b")) == "sqlite:////a b/mlflow.db"
    with pytest.raises(ValueError, match="question mark"):
        mlflow_store(Path("/a?b"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--track", "tensorbord"], "did you mean"),
        (["--track", "mlflow"], "mlflow is not installed: pip install mlflow"),
        (["--track-dir", "x"], "--track-dir is for --track"),
        (["--track", "tensorboard", "--profile", "x.json"], "leave one of them out"),
        (["--track", "tensorboard", "--track-dir", "file"], "cannot write to the trackers' folder"),
    ],
)
def test_bad_input_gets_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("file").touch()
    monkeypatch.setattr(
        "bench.report.trackers.find_spec",
        lambda name: None if name == "mlflow" else find_spec(name),
    )
    assert main(["run", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.rglob("*.json"))


def test_a_folder_is_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`wandb/`, which wandb leaves where it ran, can be imported and is not wandb."""
    (tmp_path / "wandb").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UsageError, match="wandb is not installed"):
        trackers.check_installed(["wandb"])


@pytest.mark.slow
def test_real_runs_are_logged_after_the_last(tmp_path: Path) -> None:
    """And what is meant for other programs stays alone on stdout."""
    words = ["--runs", "2", "--epochs", "2", "--threads", "1", "--device", "cpu", "--json"]
    words += ["--track", "tensorboard", "--track", "trackio", "--recipe", "fast"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", "run", *words, "--results-dir", tmp_path / "results"],
        cwd=ROOT,
        env=os.environ | FEWER_IMAGES,
        capture_output=True,
        text=True,
        check=True,
    )
    assert len(json.loads(done.stdout)) == 2
    found = store.read_records([tmp_path / "results"])
    assert len(found.records) == 2
    assert not found.problems
    folder = tmp_path / "results" / ".trackers"
    files = [path for path in folder.rglob("*") if path.is_file()]
    saved = max(path.stat().st_mtime for path, _ in found.records)
    assert files
    assert min(path.stat().st_ctime for path in files) >= saved
    runs = {path.stem for path, _ in found.records}
    assert {path.name for path in (folder / "tensorboard").iterdir()} == runs
    assert (folder / "trackio" / "mnist-bench.db").is_file()


@pytest.mark.thorough
@pytest.mark.usefixtures("fresh_accelerate")
def test_a_tracker_that_fails_costs_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError("the disk\nis full")

    monkeypatch.setattr(trackers, "log_runs", refuse)
    words = ["--runs", "1", "--epochs", "2", "--threads", "1", "--device", "cpu", "--quiet"]
    words += ["--recipe", "fast", "--track", "tensorboard", "--results-dir", str(tmp_path)]
    assert main(["run", *words]) == 1
    assert "tensorboard did not take the runs: OSError: the disk" in capsys.readouterr().err
    (run,) = store.read_records([tmp_path]).records
    assert run[1].status == "completed"
