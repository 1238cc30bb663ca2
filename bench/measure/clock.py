"""Read the time when the device has finished its work. No other module does either.

An accelerator works behind the program that feeds it: a time that is read without waiting for its
queue is the time at which work was *requested*. AlgoPerf's 20-50 % timing error was of this kind.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from itertools import pairwise
from statistics import median
from typing import Literal

import torch
from accelerate import Accelerator

from bench.records.schema import ClockCheck
from mnist_cnn.errors import UsageError

_SIDE, _PRODUCTS, _TRIES = 384, 10, 3
_EXCHANGES = 50


class DeviceClock:
    """Seconds on this rank, read when the device has finished all work.

    Args:
        accelerator: the device to wait for, and the ranks to compare with.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self._accelerator = accelerator
        # Works for cpu, cuda, mps and xpu; `torch.accelerator.synchronize` raises where torch
        # was built for CUDA and there is no GPU.
        self._synchronize = torch.get_device_module(accelerator.device).synchronize

    def now(self) -> float:
        """Seconds since an arbitrary start, never running backwards, once the queue is empty."""
        self._synchronize()
        return time.perf_counter()

    def check(self) -> ClockCheck:
        """Check, on a known piece of work, that readings wait for it and never run backwards.

        Raises:
            UsageError: they do not, so times measured here would mean nothing.
        """
        readings = [self.now() for _ in range(100)]
        steps = [later - sooner for sooner, later in pairwise(readings)]
        if min(steps) < 0:
            raise UsageError("the clock ran backwards: times measured here would mean nothing")
        matrix = torch.ones(_SIDE, _SIDE, device=self._accelerator.device) / _SIDE
        # Not timed: the first product loads libraries.
        (matrix @ matrix)[0, 0].item()
        least: ClockCheck | None = None
        for _ in range(_TRIES):
            begin = self.now()
            product = matrix
            for _ in range(_PRODUCTS):
                product = product @ matrix
            asked = time.perf_counter() - begin
            done = self.now() - begin
            product[0, 0].item()
            left = time.perf_counter() - begin - done
            # The shortest of several tries: other work of the machine may interrupt any of them.
            if least is None or left < least.left_seconds:
                least = ClockCheck(
                    work=f"{_PRODUCTS} products of {_SIDE} x {_SIDE} matrices, one after the other",
                    asked_seconds=asked,
                    done_seconds=done,
                    left_seconds=max(0.0, left),
                    resolution_seconds=min((step for step in steps if step > 0), default=0.0),
                )
        assert least is not None
        if least.left_seconds > least.done_seconds / 2:
            raise UsageError(
                f"the clock does not wait for the {self._accelerator.device.type} device: after "
                f"{least.done_seconds:.2g} s it said that a piece of work was done for which "
                f"{least.left_seconds:.2g} s more were needed"
            )
        return least

    def all_reduce_seconds(self, values: int) -> float | None:
        """Seconds of one all-reduce of float32 values by itself, on the slowest rank.

        The median of several, each waited for; None for one rank. Every rank calls this.
        """
        if self._accelerator.num_processes == 1:
            return None
        numbers = torch.zeros(values, device=self._accelerator.device)
        seconds = []
        for _ in range(_EXCHANGES):
            begin = self.now()
            self._accelerator.reduce(numbers, "sum")
            seconds.append(self.now() - begin)
        return self.across_ranks([median(seconds)], "max")[0]

    def together(self) -> float:
        """Wait for every rank, then return `now`."""
        self._accelerator.wait_for_everyone()
        return self.now()

    def across_ranks(self, values: Sequence[float], how: Literal["max", "sum"]) -> list[float]:
        """Maximum or sum of each value over all ranks. Every rank calls this."""
        if self._accelerator.num_processes == 1:
            return list(values)
        # float32 would hold a run of hours to a millisecond only, and some XPUs have no float64: so
        # each number travels as two.
        numbers = torch.tensor(list(values), dtype=torch.float64)
        near = numbers.float()
        rest = torch.where(numbers.isfinite(), numbers - near, 0).float()
        mine = torch.stack((near, rest)).to(self._accelerator.device)
        gathered = self._accelerator.gather(mine.unsqueeze(0)).cpu().double().sum(1)
        reduced = gathered.amax(0) if how == "max" else gathered.sum(0)
        return [float(value) for value in reduced.tolist()]
