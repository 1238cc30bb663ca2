"""Every command has --json: one JSON document on stdout, and the same exit status as without."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.analysis.comparison import Metric
from bench.cli import main
from tests.factories import compared, noisy_runs, saved


def document(capsys: pytest.CaptureFixture[str], status: int, *words: str) -> Any:
    assert main([*words, "--json"]) == status
    return json.loads(capsys.readouterr().out)


def test_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base, new = noisy_runs(1), noisy_runs(2, slower=1.5)
    paths = [saved(tmp_path / "base", base), saved(tmp_path / "new", new)]
    printed = document(capsys, 0, "compare", *paths)
    assert printed["base"] == paths[0]
    assert printed["gate"] is None
    [side] = printed["comparisons"]
    [case] = side["cases"]
    expected = compared(base, new)
    assert [line["metric"] for line in case["metrics"]] == [metric.value for metric in Metric]
    for line, metric in zip(case["metrics"], expected.lines, strict=True):
        assert line["verdict"] == metric.verdict.value
        assert line["low"] == (metric.difference and metric.difference.low)
    gated = document(capsys, 1, "compare", *paths, "--fail-if-slower", "5%")
    assert gated["gate"]["outcome"] == "regression"
    assert gated["gate"]["exit_status"] == 1
    (fired,) = (one for one in gated["gate"]["findings"] if one["outcome"] == "regression")
    assert (fired["case"], fired["metric"]) == (case["name"], "time an image")
    assert fired["allowed"] == 1.05
    assert 1.4 < fired["bound"] < fired["difference"] < 1.6
    assert fired["difference_unit"] == "ratio"


def test_data(mnist_data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    printed = document(capsys, 0, "data", "--offline")
    assert printed["folder"] == str(mnist_data_dir)
    assert len(printed["files"]) == 4


@pytest.mark.slow
def test_publish(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(tmp_path, noisy_runs(1))
    folder = ["--results-dir", str(tmp_path)]
    before = document(capsys, 1, "publish", "--check", *folder)
    assert not before["agreed"]
    assert len(before["differences"]) == 3
    made = document(capsys, 0, "publish", *folder)
    assert [Path(name).name for name in made["files"]] == ["README.md", "times.svg", "index.html"]
    after = document(capsys, 0, "publish", "--check", *folder)
    assert after == {"agreed": True, "differences": [], "problems": []}


@pytest.mark.slow
@pytest.mark.parametrize(
    "command", ["run", "ab", "report", "compare", "publish", "verify", "env", "data"]
)
def test_every_command_offers_it(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"]) == 0
    assert "--json" in capsys.readouterr().out
