"""Launch parameters of a GPU are searched once, kept, and never in the way."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator

from bench.measure import shape_tuning
from bench.measure.clock import DeviceClock
from bench.measure.shape_tuning import choose_shapes
from mnist_cnn.context import TrainingContext
from mnist_cnn.errors import UsageError
from mnist_cnn.kernels.triton.shapes import SHAPES, Shapes, halved
from mnist_cnn.recipe import FAST_GPU

pytest.importorskip("triton", reason="the package triton is not installed")
from triton.runtime.errors import OutOfResources

CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device")


class Seconds:
    """A clock whose time goes on with every reading and every measurement."""

    def __init__(self, each: float = 0.1) -> None:
        self.read, self.each = 0.0, each
        self.measured = 0

    def now(self) -> float:
        self.read += self.each
        return self.read

    def of(self, shapes: Shapes) -> float:
        """Blocks are fastest with two warps."""
        self.measured += 1
        return 1 + sum(shape.warps for shape in shapes["block"].values())


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA L4")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 9))
    return tmp_path


def chosen(seconds: Seconds, lines: list[str] | None = None, batch_size: int = 256) -> Any:
    accelerator = cast(Accelerator, SimpleNamespace(mixed_precision="bf16"))
    recipe = FAST_GPU.with_batch_size(batch_size)
    context = TrainingContext(recipe, accelerator, "triton")
    notify = (lines if lines is not None else []).append
    return choose_shapes(context, cast(DeviceClock, seconds), notify, seconds.of)


def kept(cache: Path) -> Path:
    (path,) = cache.rglob("*.json")
    return path


def test_a_search_is_announced_and_its_result_is_found_again(cache: Path) -> None:
    first, again, lines = Seconds(), Seconds(), list[str]()
    found = chosen(first, lines)
    assert [shape.warps for shape in found.shapes["block"].values()] == [2, 2, 2]
    assert found.shapes["pool"] == SHAPES["pool"]
    assert lines == ["finding Triton's launch parameters for NVIDIA L4: at most 30 s, once"]
    assert found.seconds > 0
    assert chosen(again).shapes == found.shapes
    assert (first.measured > 1, again.measured) == (True, 0)
    assert json.loads(kept(cache).read_text())["key"]["gpu"] == "NVIDIA L4"
    chosen(other := Seconds(), batch_size=128)
    assert other.measured > 1


def test_the_search_ends_when_its_time_is_over(cache: Path) -> None:
    slow = Seconds(each=14.0)
    chosen(slow)
    assert slow.measured == 4


class SlowCompiler(Seconds):
    """Every measurement takes a minute, in which the kernels are compiled."""

    def of(self, shapes: Shapes) -> float:
        self.read += 60.0
        return super().of(shapes)


def test_the_first_compilation_takes_nothing_of_the_searchs_time(cache: Path) -> None:
    slow, again = SlowCompiler(), SlowCompiler()
    chosen(slow)
    assert slow.measured == 2, "the table's parameters and one more"
    chosen(again)
    assert again.measured == 0


def test_parameters_that_need_too_much_are_searched_from_smaller_ones(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds, right = Seconds(), Seconds.of

    def of(shapes: Shapes) -> float:
        if shapes["stem"][28].pixels > 128:
            raise OutOfResources(75_776, 65_536, "shared memory")
        return right(seconds, shapes)

    monkeypatch.setattr(seconds, "of", of)
    found = chosen(seconds).shapes
    assert found["stem"] == halved(SHAPES)["stem"]
    assert [shape.warps for shape in found["block"].values()] == [2, 2, 2]
    assert chosen(Seconds()).shapes == found


def test_parameters_that_break_the_device_are_tried_once(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After an illegal access all work of the process on the device fails."""
    seconds, right, broken = Seconds(), Seconds.of, list[bool]()

    def of(shapes: Shapes) -> float:
        if broken or shapes["block"][14].pixels > SHAPES["block"][14].pixels:
            broken.append(True)
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return right(seconds, shapes)

    def now() -> float:
        if broken:
            raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
        return Seconds.now(seconds)

    monkeypatch.setattr(seconds, "of", of)
    monkeypatch.setattr(seconds, "now", now)
    with pytest.raises(UsageError, match=r"NVIDIA L4 have broken it .*illegal memory.*again"):
        chosen(seconds)
    again = Seconds()
    assert chosen(again).shapes["block"][28].warps == 2, "what was found before is kept"
    assert again.measured == 0


def test_parameters_with_which_the_steps_are_wrong_are_used_no_more(cache: Path) -> None:
    found = chosen(Seconds())
    assert found.distrust()
    again = Seconds()
    later = chosen(again)
    assert (later.shapes, again.measured) == (SHAPES, 0)
    assert not later.distrust(), "the table's own parameters are not to blame"


def test_a_triton_that_cannot_be_imported_is_left_to_what_is_tried_later(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    seconds = Seconds()
    assert chosen(seconds).shapes == SHAPES
    assert seconds.measured == 0


@pytest.mark.parametrize("name", ["NVIDIA H200", "NVIDIA H100 80GB HBM3"])
def test_the_gpu_of_the_table_needs_no_search(
    name: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: name)
    seconds = Seconds()
    assert chosen(seconds).shapes is SHAPES
    assert (seconds.measured, list(cache.rglob("*.json"))) == (0, [])


def test_without_a_gpu_there_is_nothing_to_search_on(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert chosen(seconds := Seconds()).shapes is SHAPES
    assert seconds.measured == 0


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('"pixels": 64', '"pixels": 65'),
        ('"warps": 4', '"warps": 4096'),
        ('"warps": 4', '"warps": true'),
        ('"warps": 4', '"warps": "4"'),
        ('"stages": 3', '"stages": null'),
        ('"stages": 3', '"stages": 99'),
        ('"block"', '"black"'),
        ('"shapes"', '"shape"'),
        ('"gpu": "NVIDIA L4"', '"gpu": "NVIDIA T4"'),
        ("{", "["),
        ("{", "[" * 100_000),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_is_kept_is_not_trusted(old: str, new: str, cache: Path) -> None:
    found = chosen(Seconds()).shapes
    text = kept(cache).read_text()
    assert old in text
    kept(cache).write_text(text.replace(old, new, 1))
    again = Seconds()
    assert chosen(again).shapes == found
    assert again.measured > 1


def test_without_a_cache_there_is_a_search_each_time(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (cache / "mnist-bench").write_text("a file")
    for _ in range(2):
        seconds = Seconds()
        assert chosen(seconds).shapes != SHAPES
        assert seconds.measured > 1


def test_kernels_that_do_not_run_are_left_to_what_is_tried_later(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = Seconds()

    def fail(_: Shapes) -> float:
        raise RuntimeError("out of resources")

    monkeypatch.setattr(seconds, "of", fail)
    assert chosen(seconds).shapes == SHAPES
    again = Seconds()
    assert chosen(again).shapes != SHAPES, "a failure is not kept"
    assert again.measured > 1


@pytest.mark.gpu
@CUDA
def test_what_is_found_on_a_gpu_runs(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shape_tuning, "LONGEST_SECONDS", 5.0)
    accelerator = Accelerator(mixed_precision="bf16")
    context = TrainingContext(FAST_GPU, accelerator, "triton")
    found = choose_shapes(context, DeviceClock(accelerator), print)
    assert set(found.shapes) == set(SHAPES)
