"""The warm-up: repeated where an epoch is cheap, until it is steady; never on the test set."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, cast

import pytest
import torch
from accelerate import Accelerator

from bench.measure.warmup import MOST_EPOCHS, repeat_warm_up
from bench.measure.workload import MnistTraining, evaluated_on_noise
from bench.records.schema import WarmUp
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import Loading, MnistData, Split
from mnist_cnn.engine.capture import without_capture
from mnist_cnn.engine.graph_cache import GraphCache
from mnist_cnn.events import EpochTrained, Event, Mistakes
from mnist_cnn.recipe import FAST, FAST_GPU, REFERENCE, Recipe

WHOLE, SHORT = 60_000, 2_656


class Device:
    """A clock, and a workload whose whole epochs take these seconds in turn, the short ones 0.01.

    The other rank takes as long, and `slower` more.
    """

    def __init__(self, epoch_seconds: Sequence[float], slower: float = 0.0) -> None:
        self._epochs = iter(epoch_seconds)
        self._slower = slower
        self.time = 0.0
        self.whole: list[bool] = []

    def now(self) -> float:
        return self.time

    def together(self) -> float:
        return self.time

    def across_ranks(self, values: Sequence[float], how: Literal["max", "sum"]) -> list[float]:
        return [value + self._slower for value in values]

    def warm_up(self, *, whole_epoch: bool = False) -> Generator[Event, None, None]:
        self.whole.append(whole_epoch)
        images = WHOLE if whole_epoch else SHORT
        self.time += next(self._epochs) if whole_epoch else 0.01
        yield EpochTrained(1, steps=1, samples=images, loss=1.0)

    def run(self, seed: int) -> Generator[Event, None, None]:
        raise NotImplementedError

    def mistakes(self) -> Mistakes | None:
        raise NotImplementedError


def warmed_up(device: Device, kind: str = "cuda") -> WarmUp:
    return repeat_warm_up(device, device, kind, WHOLE)


def test_whole_epochs_are_repeated_until_three_take_equally_long() -> None:
    device = Device([0.30, 0.25, 0.20, 0.20, 0.205, 9.0])
    warmup = warmed_up(device)
    assert warmup.lap_seconds == pytest.approx([0.01, 0.01, 0.30, 0.25, 0.20, 0.20, 0.205])
    assert warmup.steady
    assert device.whole == [False] * 2 + [True] * 5


def test_the_number_of_repetitions_is_limited() -> None:
    warmup = warmed_up(Device([0.1, 0.2] * MOST_EPOCHS))
    assert len(warmup.lap_seconds) == 2 + MOST_EPOCHS
    assert not warmup.steady


def test_their_time_is_limited() -> None:
    warmup = warmed_up(Device([2.0, 1.0, 2.0, 1.0, 2.0]))
    assert warmup.lap_seconds[2:] == pytest.approx([2.0, 1.0, 2.0])
    assert not warmup.steady


def test_where_an_epoch_is_not_cheap_nothing_is_repeated() -> None:
    """On every rank: the slowest one decides."""
    device = Device([], slower=0.02)
    assert not warmed_up(device, "cpu").steady
    assert device.whole == [False]
    compiles_first = Device([], slower=0.02)
    warmed_up(compiles_first)
    assert compiles_first.whole == [False, False]


def test_noise_has_the_shape_of_what_it_stands_for(mnist: MnistData) -> None:
    split = mnist.split("test")
    noise = evaluated_on_noise(split, 256)
    assert len(noise.train_images) == len(noise.train_labels) == 256
    assert noise.evaluation_images.shape == split.evaluation_images.shape
    assert noise.evaluation_images.dtype == split.evaluation_images.dtype
    assert noise.evaluation_labels.shape == split.evaluation_labels.shape
    same = (noise.evaluation_images == split.evaluation_images).float().mean()
    assert same < 0.02
    assert torch.equal(noise.evaluation_images, evaluated_on_noise(split, 9).evaluation_images)


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize("whole_epoch", [False, True])
def test_a_warm_up_never_gets_the_test_images(
    mnist_data_dir: Path, mnist: MnistData, monkeypatch: pytest.MonkeyPatch, whole_epoch: bool
) -> None:
    splits: list[Split] = []

    def take(_: object, __: object, data: Split, *___: object) -> Iterator[Event]:
        splits.append(data)
        yield from ()

    monkeypatch.setattr("bench.measure.workload.train", take)
    workload = MnistTraining(TrainingContext(FAST, Accelerator(cpu=True)), mnist_data_dir, 256)
    assert list(workload.warm_up(whole_epoch=whole_epoch)) == []
    assert list(workload.run(0)) == []
    warmed_up, measured = splits
    assert len(warmed_up.train_images) == (60_000 if whole_epoch else 256)
    assert not torch.equal(warmed_up.evaluation_images, mnist.test_images)
    assert torch.equal(measured.evaluation_images, mnist.test_images)
    assert len(measured.train_images) == 60_000


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize(("whole_epoch", "images"), [(True, 59_904), (False, 1024)])
def test_a_warm_up_of_captured_steps_has_whole_batches(
    mnist_data_dir: Path, monkeypatch: pytest.MonkeyPatch, whole_epoch: bool, images: int
) -> None:
    """No run has the smaller batch that all images end with: it would be captured in vain."""
    counts: list[int] = []

    def take(_: object, __: object, data: Split, *___: object) -> Iterator[Event]:
        counts.append(len(data.train_images))
        yield from ()

    monkeypatch.setattr("bench.measure.workload.train", take)
    context = TrainingContext(FAST_GPU, Accelerator(cpu=True))
    graphs = GraphCache(context, without_capture)
    workload = MnistTraining(context, mnist_data_dir, 1200, graphs=graphs)
    assert list(workload.warm_up(whole_epoch=whole_epoch)) == []
    assert counts == [images]


@pytest.mark.usefixtures("fresh_accelerate")
@pytest.mark.parametrize(("recipe", "needed"), [(FAST, "meta"), (REFERENCE, "cpu")])
def test_a_run_has_its_images_where_they_are_distorted(
    recipe: Recipe, needed: str, mnist_data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices: list[str] = []

    def load(data_dir: Path, device: torch.device, threads: int) -> Loading:
        devices.append(device.type)
        return Loading(data_dir, torch.device("cpu"), threads)

    monkeypatch.setattr("bench.measure.workload.Loading", load)
    monkeypatch.setattr("bench.measure.workload.train", lambda *_: iter(()))
    accelerator = cast(Accelerator, SimpleNamespace(device=torch.device("meta")))
    workload = MnistTraining(TrainingContext(recipe, accelerator), mnist_data_dir, 256)
    assert list(workload.run(0)) == []
    assert devices == [needed]
