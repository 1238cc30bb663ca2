"""docs/extending.md, followed literally in a copy of the project."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.commands import PYTHON, ROOT, SHORT_RUN, launch
from tests.stand_ins import FEWER_IMAGES

pytestmark = pytest.mark.slow

PAGE = (ROOT / "docs/extending.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"^### ([^\n]+)\n\n```diff\n(.*?)```", PAGE, re.MULTILINE | re.DOTALL))
"""A patch by heading."""
MOST_FILES = 2
EVERY_FORMAT = """
from bench.cli import main

for name in {names!r}:
    words = ["--columns", "recipe,{column}"] if name == "markdown" else []
    assert main(["report", "results", "--to", name, "--output", name, *words]) == 0, name
"""
A_DEVICE = """
from dataclasses import replace

import torch

from bench.machine.environment import device_name
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import load
from mnist_cnn.data.download import fetch
from mnist_cnn.events import Evaluated
from mnist_cnn.recipe import FAST
from mnist_cnn.train import seeded_model, train
from tests.stand_ins.strict_device import accelerator_of, strict_device

class Driver:
    get_device_name = staticmethod(lambda: "Gaudi 3")

torch.hpu = Driver
print(device_name("hpu"))
recipe = replace(FAST.with_epochs(1), batch_size=64)
data = load(fetch().folder, offline=True).split("test")
data = replace(data, train_images=data.train_images[:640], train_labels=data.train_labels[:640],
               evaluation_images=data.evaluation_images[:64],
               evaluation_labels=data.evaluation_labels[:64])
with strict_device("hpu") as strict:
    context = TrainingContext(recipe, accelerator_of(strict))
    events = list(train(seeded_model(recipe, 0), context, data, 0))
print(type(events[-1]).__name__, "convolution_backward" in strict.operators)
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """The files that git knows, as they are now, and the compiled code."""
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    ).stdout.split("\n")  # fmt: skip
    listed += ["mnist_cnn/kernels/native/libnative.so"]
    for name in listed:
        needed = name.startswith(("bench/", "mnist_cnn/", "tests/", "results/intel-xeon-2-cores/"))
        if needed and (ROOT / name).is_file():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tmp_path / name)
    if not (tmp_path / "bench").exists():
        pytest.skip("not a git checkout")
    return tmp_path


def add(example: str, project: Path) -> None:
    """Apply the example's patch, as the page says."""
    patch = EXAMPLES[example]
    assert len(set(re.findall(r"^\+\+\+ b/(.+)", patch, re.MULTILINE))) <= MOST_FILES
    subprocess.run(["git", "apply", "-"], cwd=project, input=patch, text=True, check=True)


def python(project: Path, *words: object) -> str:
    """What a program prints that imports the copy."""
    stand_in = project / Path(FEWER_IMAGES["PYTHONPATH"]).relative_to(ROOT)
    environment = FEWER_IMAGES | {"PYTHONPATH": f"{stand_in}:{project}"}
    done = launch([PYTHON, *words], project, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def test_the_page_has_an_example_of_each() -> None:
    assert list(EXAMPLES) == ["A recipe", "A metric", "A format", "A device"]


def test_a_recipe(project: Path) -> None:
    add("A recipe", project)
    python(project, "-m", "bench", "run", "--recipe", "short", *SHORT_RUN, "--results-dir", "own")
    rows = python(project, "-m", "bench", "report", "own", "--to", "csv").splitlines()
    assert ",short," in rows[1]
    assert ",open," in rows[1]


def test_a_metric_is_in_every_format_that_holds_values(project: Path) -> None:
    """But not in one of only bigger is better, nor in MLPerf's log, which has MLPerf's keys."""
    add("A metric", project)
    names = ["json", "csv", "markdown", "parquet", "pytest-benchmark", "bmf"]
    names += ["github-action-smaller"]
    column = "slowest_epoch_seconds_median"
    python(project, "-c", EVERY_FORMAT.format(names=names, column=column))
    for name in names:
        content = (project / name).read_bytes()
        assert re.search(rb"slowest[ _-]epoch", content), name


def test_a_format(project: Path) -> None:
    add("A format", project)
    text = python(project, "-m", "bench", "report", "results", "--to", "tsv")
    header, *rows = [line.split("\t") for line in text.splitlines() if "\t" in line]
    assert header[0] == "benchmark_id"
    assert rows
    assert {len(row) for row in rows} == {len(header)}


@pytest.mark.parametrize("example", EXAMPLES)
def test_each_patch_fits_the_files_of_today(example: str, project: Path) -> None:
    add(example, project)


@pytest.mark.thorough
def test_a_device(project: Path) -> None:
    add("A device", project)
    assert python(project, "-c", A_DEVICE).splitlines() == ["Gaudi 3", "Finished True"]
    absent = launch([PYTHON, "-m", "bench", "run", "--device", "hpu"], project)
    assert absent.returncode == 2
    assert "no hpu device found by torch" in absent.stderr
