"""`bench.run` and `bench.compare` in a program; tests/report/test_tables.py has `bench.load`."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pandas
import pytest

import bench
from bench.cli import main
from bench.records.store import read_records
from mnist_cnn.errors import UsageError
from tests.commands import PYTHON, launch
from tests.factories import make_benchmark, saved
from tests.stand_ins import FEWER_IMAGES

ROOT = Path(__file__).resolve().parents[1]
ON_ONE_CORE = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
"""
"""For a program whose runs take all cores: on a busy machine two threads wait for each other."""


@pytest.fixture
def few_images(monkeypatch: pytest.MonkeyPatch, mnist_data_dir: Path) -> None:
    """For the process that `run` starts."""
    for name, value in FEWER_IMAGES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("MNIST_DATA_DIR", str(mnist_data_dir))


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_the_documents_code_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "notebooks.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", page, re.DOTALL)[0]
    short = 'runs=1, threads=1, options=["--epochs", "3"]'
    names: dict[str, Any] = {}
    exec(code.replace("runs=5", short).replace("bench.compare", "table = bench.compare"), names)
    table = names["table"]
    assert list(table["metric"])[:2] == ["time to target", "time an image"]
    records = read_records([tmp_path / "results" / "local"]).records
    assert sorted(record.label or "" for _, record in records) == ["after", "before"]
    loaded = bench.load(per="run")
    pandas.testing.assert_index_equal(
        loaded.columns, bench.load("results/local", per="run").columns
    )
    assert set(loaded["seed"]) == {0}


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_the_notebooks_code_runs(tmp_path: Path) -> None:
    """All of its cells, one after the other; but not the first, which installs the package."""
    notebook = json.loads((ROOT / "docs" / "benchmark.ipynb").read_text(encoding="utf-8"))
    install, *cells = ["".join(c["source"]) for c in notebook["cells"] if c["cell_type"] == "code"]
    assert install.strip() == "%pip install --quiet ./mnist_bench-*.whl"
    cells.insert(0, ON_ONE_CORE)
    cells.append("assert bench.compare('fast', 'again')['low'].notna().any()")
    done = launch(
        [PYTHON, "-c", "\n".join(cells)],
        tmp_path,
        PYTHONPATH=f"{FEWER_IMAGES['PYTHONPATH']}:{ROOT}",
    )
    assert done.returncode == 0, done.stderr
    labels = [record.label for _, record in read_records([tmp_path / "results" / "local"]).records]
    assert {label: labels.count(label) for label in labels} == {"fast": 5, "torch": 1, "again": 5}


@pytest.mark.slow
@pytest.mark.usefixtures("few_images")
def test_rows_are_those_of_the_records(tmp_path: Path) -> None:
    table = bench.run(
        runs=2, seed=4, threads=1, device="cpu", results_dir=tmp_path, options=["--epochs", "3"]
    )
    assert list(table["seed"]) == [4, 5]
    assert list(table["status"]) == ["completed", "completed"]
    loaded = bench.load(tmp_path, per="run")
    pandas.testing.assert_frame_equal(table, loaded)


@pytest.mark.slow
def test_what_the_command_refuses_is_an_error(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match=r"no run was made \(exit status 2\)"):
        bench.run(recipe="fasd")
    assert "unknown recipe 'fasd'" in capfd.readouterr().err


def test_a_comparison_has_what_the_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = saved(tmp_path / "base", make_benchmark((6.1, 6.2, 6.3, 6.4, 6.5)))
    new = saved(tmp_path / "new", make_benchmark((5.1, 5.2, 5.3, 5.4, 5.5)))
    table = bench.compare(base, new)
    assert main(["compare", str(base), str(new), "--json"]) == 0
    ((case,),) = (one["cases"] for one in json.loads(capsys.readouterr().out)["comparisons"])
    assert set(table["name"]) == {case["name"]}
    assert list(table["verdict"]) == [metric["verdict"] for metric in case["metrics"]]
    for name in ("difference", "low", "high", "runs_needed"):
        values = [None if value is pandas.NA else value for value in table[name]]
        assert values == [metric[name] for metric in case["metrics"]]
    with pytest.raises(UsageError, match="at least two"):
        bench.compare(base)
    with pytest.raises(UsageError, match="nowhere"):
        bench.compare(base, tmp_path / "nowhere")
