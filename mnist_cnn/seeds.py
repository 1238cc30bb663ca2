"""Independent seeds for every source of randomness, from one."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends on `seed` and on what it is for, and on nothing else.

    Neighbouring seeds and purposes give unrelated generators, on every platform alike.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
