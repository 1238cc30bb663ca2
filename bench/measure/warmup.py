"""Repeat the warm-up until a repetition takes as long as the one before, within limits.

A GPU that was idle needs a while until its clocks, its memory and its driver are as they are in a
long benchmark: a first run there took a third longer than the later ones after a warm-up of 21
batches. A CPU shows no such effect, and must not pay for it. So the warm-up trains whole epochs,
again and again, only where an epoch takes a moment.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bench.measure.instruments import Clock, Workload
from bench.records.schema import WarmUp
from bench.stats.sums import exact_sum
from mnist_cnn.events import EpochTrained

CHEAP_SECONDS = 0.5
"""Estimated time of an epoch from which on the warm-up trains no whole epoch."""
MOST_EPOCHS = 10
"""Number of whole epochs that the warm-up trains at most."""
MOST_SECONDS = 5.0
"""Time that all whole epochs may take together; the last one may exceed it."""
STEADY_PASSES = 3
"""Number of last repetitions that must take equally long."""
STEADY_DIFFERENCE = 0.05
"""Relative difference between the longest and the shortest of them that counts as equal."""


class _Pass(NamedTuple):
    """One repetition, on the slowest rank."""

    seconds: float
    train_seconds: float
    images: int


def repeat_warm_up(workload: Workload, clock: Clock, device: str, train_images: int) -> WarmUp:
    """Warm up; every rank calls this and makes as many repetitions.

    A short repetition is the first. On other devices than a CPU a second one follows, because the
    first may have compiled code. Then whole epochs follow where they are cheap.

    Args:
        workload: what is warmed up.
        clock: waits for the device.
        device: torch's name of the device type.
        train_images: training images of an epoch.
    """
    last = _warm_up_once(workload, clock, whole_epoch=False)
    laps = [last.seconds]
    if device != "cpu":
        last = _warm_up_once(workload, clock, whole_epoch=False)
        laps.append(last.seconds)
    if last.images == 0 or last.train_seconds * train_images / last.images > CHEAP_SECONDS:
        return WarmUp(lap_seconds=laps, steady=False)
    epochs: list[float] = []
    while len(epochs) < MOST_EPOCHS and exact_sum(epochs) < MOST_SECONDS and not is_steady(epochs):
        epochs.append(_warm_up_once(workload, clock, whole_epoch=True).seconds)
    return WarmUp(lap_seconds=laps + epochs, steady=is_steady(epochs))


def is_steady(seconds: Sequence[float]) -> bool:
    """Whether the last repetitions took equally long."""
    last = seconds[-STEADY_PASSES:]
    return len(last) == STEADY_PASSES and max(last) <= (1 + STEADY_DIFFERENCE) * min(last)


def _warm_up_once(workload: Workload, clock: Clock, *, whole_epoch: bool) -> _Pass:
    begin = previous = clock.together()
    train_seconds, images = 0.0, 0
    for event in workload.warm_up(whole_epoch=whole_epoch):
        now = clock.now()
        if isinstance(event, EpochTrained):
            train_seconds += now - previous
            images += event.samples
        previous = now
    # Over all ranks, so that all decide alike.
    seconds = clock.across_ranks([clock.now() - begin, train_seconds], "max")
    return _Pass(seconds[0], seconds[1], images)
