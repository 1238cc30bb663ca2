"""How long a transfer may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferLimits:
    """How long one source of MNIST may take before the next one is asked.

    A server may also be too slow, or send a byte now and then for ever: every limit counts the time
    that has passed, whatever has come meanwhile.
    """

    open_seconds: float = 6.0
    """Name look-up, connection and first answer of a mirror together: behind a closed network, the
    next source must follow within seconds."""
    stall_seconds: float = 15.0
    """Longest pause in a transfer, and the time before its rate counts."""
    slowest_bytes_per_second: float = 16 * 1024
    """Lowest mean rate of a transfer from a mirror: at this rate, MNIST takes 12 minutes."""
    total_seconds: float = 600.0
    """All files from one mirror, or from the package index with all of its installers."""


LIMITS = TransferLimits()
"""The limits of every transfer, unless a caller sets others."""
