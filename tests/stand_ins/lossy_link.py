"""A cable between two machines that never were: two Ethernet devices, and what goes into one comes
out of the other late or not at all. For kernels without `tc netem`, which is most sandboxes' case.

    python lossy_link.py NAME NAME DELAY_SECONDS LOSS

Needs the right to make network devices, as in a user namespace of one's own. Prints "ready" once
both are there, carries until it is ended, and prints how many frames it lost and how many not.
"""

from __future__ import annotations

import fcntl
import heapq
import os
import random
import select
import signal
import struct
import sys
import time

_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
"""Source: linux/if_tun.h."""
_LARGEST_FRAME = 65_536


def device(name: str) -> int:
    """A new Ethernet device's other end."""
    end = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(end, _TUNSETIFF, struct.pack("16sH", name.encode(), _IFF_TAP | _IFF_NO_PI))
    return end


def carry(ends: tuple[int, int], delay_seconds: float, loss: float) -> None:
    """Frames from each end to the other, for ever."""
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    chance = random.Random(0)
    under_way: list[tuple[float, int, int, bytes]] = []
    number = lost = 0

    def tell(*_: object) -> None:
        print(lost, number, flush=True)
        sys.exit()

    signal.signal(signal.SIGTERM, tell)
    while True:
        wait = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        ready, _, _ = select.select(ends, [], [], wait)
        for end in ready:
            frame = os.read(end, _LARGEST_FRAME)
            if chance.random() < loss:
                lost += 1
                continue
            number += 1
            due = time.monotonic() + delay_seconds
            heapq.heappush(under_way, (due, number, other[end], frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, end, frame = heapq.heappop(under_way)
            try:
                os.write(end, frame)
            except OSError:  # the device is not up yet
                continue


if __name__ == "__main__":
    both = device(sys.argv[1]), device(sys.argv[2])
    print("ready", flush=True)
    carry(both, float(sys.argv[3]), float(sys.argv[4]))
