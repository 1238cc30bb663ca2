"""How long the pieces of a run take: `pytest tests/benchmarks`, on a machine left alone.

Never part of the test run: nothing here can fail for being slow. Compare two states of the code
with pytest-benchmark's own `--benchmark-save` and `--benchmark-compare`. Read by the harness's own
clock, which waits for the device.
"""

from __future__ import annotations

import math
import random
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median

import pytest
import torch
from accelerate import Accelerator
from pytest_benchmark.fixture import BenchmarkFixture
from torch import Tensor

from bench.machine.meter import Meter
from bench.measure.clock import DeviceClock
from bench.measure.interruption import Interruption
from bench.measure.observer import RunContext, observe
from bench.measure.progress import RunProgress
from bench.records import store
from bench.records.protocol import BenchmarkProtocol
from bench.stats.intervals import paired_location_shift
from mnist_cnn.augment import augment, draw
from mnist_cnn.batches import Batch
from mnist_cnn.context import TrainingContext
from mnist_cnn.data.dataset import MnistData, Split, load
from mnist_cnn.engine.step import evaluated_by, make_step
from mnist_cnn.evaluation import evaluate
from mnist_cnn.events import EpochTrained, Evaluated, Event
from mnist_cnn.kernels import native
from mnist_cnn.model import MnistCnn
from mnist_cnn.recipe import FAST, Kernels
from mnist_cnn.train import seeded_model, train
from tests.factories import make_benchmark

ACCELERATOR = Accelerator(cpu=not torch.cuda.is_available(), dynamo_backend="no")
CLOCK = DeviceClock(ACCELERATOR)
BATCH = FAST.batch_size
RECIPE = replace(FAST.with_epochs(1), memory_format="contiguous")
EPOCH_IMAGES = 6_400
"""A tenth of an epoch: enough to be timed, little enough to be repeated."""

KERNELS: list[Kernels] = [
    "torch",
    *(k for k in reversed(native.FAST_KINDS) if not native.unavailable_reason(k)),
]
"""Those that this machine can use, the fastest last."""

by_our_clock = pytest.mark.benchmark(timer=CLOCK.now)
kernels_here = pytest.mark.parametrize("kernels", KERNELS)


@pytest.fixture(autouse=True)
def described(benchmark: BenchmarkFixture) -> Iterator[None]:
    """What a stored time must be known together with."""
    benchmark.extra_info["device"] = ACCELERATOR.device.type
    benchmark.extra_info["threads"] = torch.get_num_threads()
    benchmark.extra_info["torch"] = torch.__version__
    native.set_threads(torch.get_num_threads())
    yield
    native.set_threads(1)


def repeat(benchmark: BenchmarkFixture, work: Callable[[], object], rounds: int) -> object:
    pedantic: Callable[..., object] = benchmark.pedantic
    return pedantic(work, rounds=rounds, warmup_rounds=1, iterations=1)


def batch(mnist: MnistData) -> tuple[Tensor, Tensor]:
    images = mnist.train_images[:BATCH].float().unsqueeze(1) / 255
    return images.to(ACCELERATOR.device), mnist.train_labels[:BATCH].to(ACCELERATOR.device)


@by_our_clock
@kernels_here
def test_training_step(benchmark: BenchmarkFixture, mnist: MnistData, kernels: Kernels) -> None:
    context = TrainingContext(RECIPE, ACCELERATOR, kernels)
    step = make_step(MnistCnn(dropout=0.0).to(ACCELERATOR.device), context)
    images, labels = batch(mnist)
    whole = Batch(images, labels, 1.0)

    def train_batch() -> None:
        step(whole)
        step.optimizer.step()
        step.optimizer.zero_grad()

    repeat(benchmark, train_batch, rounds=30)


@by_our_clock
@kernels_here
def test_epoch(benchmark: BenchmarkFixture, mnist: MnistData, kernels: Kernels) -> None:
    """Train `EPOCH_IMAGES` and evaluate on all test images."""
    data = shortened(mnist)
    context = TrainingContext(RECIPE, ACCELERATOR, kernels)

    def epoch() -> float:
        events = train(seeded_model(RECIPE, 0), context, data, 0)
        return next(event.accuracy for event in events if isinstance(event, Evaluated))

    benchmark.extra_info["images"] = EPOCH_IMAGES
    benchmark.extra_info["accuracy"] = repeat(benchmark, epoch, rounds=5)


@by_our_clock
@kernels_here
def test_augmentation(benchmark: BenchmarkFixture, mnist: MnistData, kernels: Kernels) -> None:
    images = mnist.train_images.to(ACCELERATOR.device)
    chosen = torch.arange(BATCH, device=ACCELERATOR.device)
    drawn = draw(BATCH, RECIPE, torch.Generator().manual_seed(0)).to(ACCELERATOR.device)

    def work() -> Tensor:
        if kernels != "torch":
            return native.augment(images, chosen, drawn, RECIPE, kernels)
        return augment(images[chosen], drawn, RECIPE)

    repeat(benchmark, work, rounds=50)


@by_our_clock
@kernels_here
def test_evaluation(benchmark: BenchmarkFixture, mnist: MnistData, kernels: Kernels) -> None:
    model = evaluated_by(MnistCnn(dropout=0.0).to(ACCELERATOR.device), kernels)
    images = mnist.test_images.to(ACCELERATOR.device)
    labels = mnist.test_labels.to(ACCELERATOR.device)
    context = TrainingContext(RECIPE, ACCELERATOR, kernels)
    repeat(benchmark, lambda: evaluate(model, images, labels, context, 1), rounds=5)


@by_our_clock
def test_data_load(benchmark: BenchmarkFixture, mnist: MnistData) -> None:
    """Read and verify all four files."""
    del mnist  # there by now
    repeat(benchmark, lambda: load(offline=True), rounds=20)


@pytest.mark.parametrize("command", ["--help", "report --help", "env"])
def test_start_up(benchmark: BenchmarkFixture, command: str) -> None:
    words = [sys.executable, "-m", "bench", *command.split()]
    repeat(benchmark, lambda: subprocess.run(words, check=True, capture_output=True), rounds=5)


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of so many records: of a year of nightly runs on some machines."""
    folder = tmp_path_factory.mktemp("records")
    number = 0
    for _ in range(1_000):
        for record in make_benchmark([6.4 + 0.01 * run for run in range(10)]):
            (folder / f"{number:05}.json").write_text(store.to_json(record), encoding="utf-8")
            number += 1
    return folder


@pytest.mark.parametrize("options", ["--json", "--per run --to csv", "--filter runs>3 --json"])
@pytest.mark.timeout(1200)
def test_report(benchmark: BenchmarkFixture, ten_thousand: Path, options: str) -> None:
    """Of 10,000 records, from the start of the command to its end."""
    words = [sys.executable, "-m", "bench", "report", str(ten_thousand), *options.split()]
    benchmark.extra_info["records"] = 10_000
    repeat(benchmark, lambda: subprocess.run(words, check=True, capture_output=True), rounds=3)


@by_our_clock
@pytest.mark.timeout(1200)
def test_harness_overhead(benchmark: BenchmarkFixture, mnist: MnistData) -> None:
    """A short training stamped by the harness and the same one gone through bare, in random order.

    extra_info says how much longer the former was, as a share of the latter, with the 95 % interval
    of signed ranks. Pairs differ by several per cent: one per cent takes hundreds.
    """
    data, context = shortened(mnist), TrainingContext(RECIPE, ACCELERATOR, KERNELS[-1])
    bare: list[float] = []
    observed: list[float] = []

    def events() -> Generator[Event, None, None]:
        return train(seeded_model(RECIPE, 0), context, data, 0)

    def go_through() -> None:
        start = CLOCK.now()
        assert any(isinstance(event, EpochTrained) for event in list(events()))
        bare.append(CLOCK.now() - start)

    def observe_it() -> None:
        start = CLOCK.now()
        meter = Meter(ACCELERATOR.device.type)
        meter.start()
        context = RunContext(
            protocol=BenchmarkProtocol(),
            clock=CLOCK,
            signals=Interruption(),
            progress=RunProgress(),
            epochs=1,
        )
        observation = observe(events(), context)
        meter.stop(meter.own_cpu_seconds())
        observed.append(CLOCK.now() - start)
        assert observation.error is None

    order = random.Random(0)

    def both() -> None:
        for one in order.sample((go_through, observe_it), 2):
            one()

    repeat(benchmark, both, rounds=200)
    pairs = list(zip(observed, bare, strict=True))[1:]  # not the warm-up
    logs = [math.log(timed / plain) for timed, plain in pairs]
    overhead = paired_location_shift(logs, 0.025).as_ratio()
    benchmark.extra_info["pairs"] = len(pairs)
    benchmark.extra_info["bare_seconds"] = median(bare)
    benchmark.extra_info["overhead"] = overhead.value - 1
    benchmark.extra_info["overhead_interval"] = [(overhead.low or 0) - 1, (overhead.high or 0) - 1]


def shortened(mnist: MnistData) -> Split:
    return Split(
        mnist.train_images[:EPOCH_IMAGES],
        mnist.train_labels[:EPOCH_IMAGES],
        mnist.test_images,
        mnist.test_labels,
    )
