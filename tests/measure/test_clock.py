"""The clock waits for the device and agrees among ranks. Several ranks: tests/cli/test_run.py."""

from __future__ import annotations

import math
import time
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from accelerate import Accelerator

from bench.machine.own_process import seconds_since_start
from bench.measure.clock import DeviceClock
from mnist_cnn.errors import UsageError
from tests.stand_ins.strict_device import strict_device


def test_now_never_runs_backwards() -> None:
    clock = DeviceClock(Accelerator(cpu=True))
    readings = [clock.now() for _ in range(1000)]
    assert readings == sorted(readings)
    assert clock.together() >= readings[-1]


def test_every_reading_waits_for_the_devices_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a queue that takes its time: the reading is not of before it was empty."""
    emptied: list[float] = []

    def synchronize() -> None:
        time.sleep(0.02)
        emptied.append(time.perf_counter())

    monkeypatch.setattr(
        torch, "get_device_module", lambda _: SimpleNamespace(synchronize=synchronize)
    )
    clock = DeviceClock(Accelerator(cpu=True))
    for count in (1, 2, 3):
        reading = clock.now()
        assert len(emptied) == count
        assert reading >= emptied[-1]


def test_the_clock_is_checked_on_real_work() -> None:
    checked = DeviceClock(Accelerator(cpu=True)).check()
    assert 0 < checked.asked_seconds <= checked.done_seconds
    assert checked.left_seconds < checked.done_seconds / 2
    assert 0 < checked.resolution_seconds < 1e-3
    assert "matrices" in checked.work


def test_a_clock_that_does_not_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """The result is there a second after the clock said that the work was done."""
    clock = DeviceClock(Accelerator(cpu=True))
    seconds = [0.0]
    item = torch.Tensor.item

    def read() -> float:
        seconds[0] += 0.001
        return seconds[0]

    def late(tensor: torch.Tensor) -> object:
        seconds[0] += 1.0
        return item(tensor)

    # Not the real time: a busy machine may take longer than that for the work itself.
    monkeypatch.setattr(time, "perf_counter", read)
    monkeypatch.setattr(torch.Tensor, "item", late)
    with pytest.raises(UsageError, match="the clock does not wait for the cpu device"):
        clock.check()


def test_a_clock_that_runs_backwards_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = DeviceClock(Accelerator(cpu=True))
    times = (float(-n) for n in range(10**6))
    monkeypatch.setattr(time, "perf_counter", lambda: next(times) + 1e7)
    with pytest.raises(UsageError, match="the clock ran backwards"):
        clock.check()


def test_alone_the_slowest_rank_is_this_one() -> None:
    clock = DeviceClock(Accelerator(cpu=True))
    assert clock.across_ranks([1.5, 2.5], "max") == [1.5, 2.5]
    assert clock.across_ranks([1.5], "sum") == [1.5]


def test_ranks_agree_to_the_microsecond_where_the_device_has_no_float64() -> None:
    hours = 123_456.789_012_345
    with strict_device("xpu") as strict:
        two_alike = SimpleNamespace(
            num_processes=2, device=strict.device, gather=lambda mine: torch.cat((mine, mine))
        )
        clock = DeviceClock(cast(Accelerator, two_alike))
        assert clock.across_ranks([hours, 0.0], "max") == pytest.approx([hours, 0], abs=1e-6)
        assert clock.across_ranks([hours, math.inf], "sum") == [
            pytest.approx(2 * hours, abs=1e-6),
            math.inf,
        ]
    assert "cat" in strict.operators


def test_the_process_started_before_now_and_after_the_machine() -> None:
    age = seconds_since_start()
    time.sleep(0.05)
    assert seconds_since_start() - age >= 0.03  # in ticks of 0.01
    assert 0 < age < 24 * 3600


@pytest.mark.gpu
def test_a_gpu_reading_includes_the_work_queued_before_it() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    clock = DeviceClock(Accelerator())
    matrix = torch.randn(4096, 4096, device="cuda")
    begin = clock.now()
    for _ in range(50):
        matrix = matrix @ matrix / 64
    queued = time.perf_counter() - begin
    assert clock.now() - begin > 3 * queued
