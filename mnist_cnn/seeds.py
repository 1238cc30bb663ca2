"""Independent seeds for every source of randomness, from one."""

from __future__ import annotations

import hashlib


def derived_seed(seed: int, *purpose: str | int) -> int:
    """A 63-bit seed that depends only on `seed` and on its purpose.

    Neighbouring seeds and purposes give unrelated generators, the same on every platform.
    """
    text = "/".join(str(part) for part in (seed, *purpose))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 1
