"""`mnist-bench compare` of two machines with other kernels: the ratio, and the devices alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from bench.cli import main
from bench.records.schema import RunRecord
from mnist_cnn.recipe import FAST
from tests.factories import ZEN_4, ZEN_5, noisy_runs, saved

AMX = {"kernels": "amx", "precision": "bf16"}
CODE = "so every ratio of times contains the code's difference"
ALONE = "The devices alone: the same machines and recipe, torch's operators on both"
TORCH_RUN = "--device cpu --kernels torch"


def runs(
    seed: int, processor: dict[str, Any], slower: float, setup: dict[str, Any], **fields: Any
) -> list[RunRecord]:
    environment = {"processor": processor}
    return noisy_runs(seed, slower=slower, setup=setup, environment=environment, **fields)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A is five times as fast as B with our kernels, and half as fast with torch's operators."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    saved(tmp_path / "a", runs(0, ZEN_4, 0.2, AMX))
    saved(tmp_path / "b", runs(1, ZEN_5, 1.0, {}))
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["compare", *words]) == 0
    return capsys.readouterr().out


def test_the_devices_alone_stand_beside_a_ratio_that_contains_the_code(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(folder / "results", runs(2, ZEN_4, 2.0, {}))
    output = printed(capsys, "b", "a")
    assert f"! kernels differs: torch (base), amx (new), {CODE}\n" in output
    with_code, alone = output.split(ALONE)
    assert "-80." in next(line for line in with_code.splitlines() if "time an image" in line)
    image = next(line for line in alone.splitlines() if "time an image" in line)
    assert "+9" in image or "+10" in image
    assert "worse" in image
    assert alone.count("CPU model differs") == 0, "what stands above is not said again"
    assert "--kernels torch" not in output


def test_json_has_both(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved(folder / "results", runs(2, ZEN_4, 2.0, {}))
    [sides] = json.loads(printed(capsys, "b", "a", "--json"))["comparisons"]
    assert sides["torch_operators"]["missing"] == []
    assert sides["cases"][0]["metrics"][1]["difference"] == pytest.approx(0.2, rel=0.05)
    alone = sides["torch_operators"]["case"]["metrics"][1]
    assert (alone["metric"], alone["verdict"]) == ("time an image", "worse")
    assert alone["difference"] == pytest.approx(2, rel=0.05)


def test_without_such_runs_there_is_the_command_that_makes_them(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = printed(capsys, "b", "a")
    assert ALONE not in output
    [line] = [line for line in output.splitlines() if TORCH_RUN in line]
    assert line.startswith("! new: no runs of AMD EPYC with this recipe and torch's operators")
    # The factory's runs have six epochs.
    assert f"run there: mnist-bench run --recipe fast --epochs 6 {TORCH_RUN}" in line
    [sides] = json.loads(printed(capsys, "b", "a", "--json"))["comparisons"]
    assert sides["torch_operators"]["case"] is None
    assert len(sides["torch_operators"]["missing"]) == 1


@pytest.mark.parametrize(
    "other",
    [
        {"processor": ZEN_5},
        {"recipe": {"peak_learning_rate": 0.5}},
        {"setup": {"parallel_seeds": 2}},
        {"protocol": {"stop_at_target": True}},
        {"status": "interrupted"},
    ],
    ids=lambda other: next(iter(other)),
)
def test_other_machines_recipes_and_rules_do_not_count(
    folder: Path, capsys: pytest.CaptureFixture[str], other: dict[str, Any]
) -> None:
    fields = {"processor": ZEN_4, "setup": {}} | other
    saved(folder / "results", runs(2, slower=2.0, **fields))
    assert TORCH_RUN in printed(capsys, "b", "a")


def test_runs_beside_a_named_file_are_found_and_the_fastest_count(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved(folder / "a", runs(2, ZEN_4, 2.0, {}, label="one"))
    saved(folder / "a", runs(3, ZEN_4, 1.5, {"precision": "fp32"}, label="two"))
    amx = [path for path in (folder / "a").rglob("*.json") if '"amx"' in path.read_text()]
    [sides] = json.loads(printed(capsys, "b", str(amx[0]), "--json"))["comparisons"]
    alone = sides["torch_operators"]["case"]
    assert alone["metrics"][1]["difference"] == pytest.approx(1.5, rel=0.05)
    assert "precision differs: bf16 (base), fp32 (new)" in alone["remarks"]


def test_a_field_that_older_records_do_not_have_makes_no_other_recipe(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = {**FAST.with_epochs(6).values(), "a_newer_field": 1}
    saved(folder / "results", runs(2, ZEN_4, 2.0, {}, recipe=recipe))
    assert ALONE in printed(capsys, "b", "a")


@pytest.mark.parametrize(
    ("processor", "setup", "says_code"),
    [
        (ZEN_5, AMX, True),  # one machine: the ratio is the code's
        (ZEN_4, {"kernels": "inductor"}, False),  # torch's operators, fused by torch
        (ZEN_4, {}, False),
    ],
    ids=["one machine", "torch's compiler", "equal kernels"],
)
def test_where_code_and_device_are_not_mixed_nothing_is_added(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    processor: dict[str, Any],
    setup: dict[str, Any],
    says_code: bool,
) -> None:
    new = saved(folder / "c", runs(4, processor, 0.5, setup))
    output = printed(capsys, "b", new)
    assert (CODE in output) is says_code
    assert ALONE not in output
    assert TORCH_RUN not in output
