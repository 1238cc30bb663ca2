"""Which machine a record is of: the key that keeps unlike machines apart.

A name is no identity: two generations of processors both call themselves "AMD EPYC". Two keys are
of one machine only where every fact is known in both and equal. What an older record did not store
is unknown: it is compared with a warning, and never merged with what is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from bench.records.machine import Environment

_DIGEST_LETTERS = 6


class MachineRelation(StrEnum):
    """What two keys say of two machines."""

    SAME = "the same kind of machine"
    UNKNOWN = "nothing known differs, but not everything is known"
    DIFFERENT = "different machines"


@dataclass(frozen=True, slots=True)
class MachineKey:
    """Facts that decide how fast a machine is; equal keys are the same kind of machine."""

    facts: tuple[tuple[str, str | None], ...]
    """Each fact's name, as messages give it, and its value; None where it is not known."""

    @classmethod
    def of(cls, environment: Environment) -> MachineKey:
        """The key of the machine that an environment describes."""
        return cls(tuple(_facts(environment)))

    @property
    def digest(self) -> str | None:
        """A short name of the key for folders and tables; None for records before version 8."""
        values = dict(self.facts)
        if values["quota"] is None:
            return None
        return hashlib.sha256(repr(self.facts).encode()).hexdigest()[:_DIGEST_LETTERS]

    def differences(self, other: MachineKey) -> list[tuple[str, str, str]]:
        """Facts known in both that differ: name, value here, value there."""
        return [
            (name, here, there)
            for (name, here), (_, there) in zip(self.facts, other.facts, strict=True)
            if here is not None and there is not None and here != there
        ]

    def unknown(self, other: MachineKey) -> list[str]:
        """Names of the facts that only one of the two knows."""
        return [
            name
            for (name, here), (_, there) in zip(self.facts, other.facts, strict=True)
            if (here is None) != (there is None)
        ]

    def relation(self, other: MachineKey) -> MachineRelation:
        """Whether both are the same kind of machine, as far as is known."""
        if self.differences(other):
            return MachineRelation.DIFFERENT
        return MachineRelation.UNKNOWN if self.unknown(other) else MachineRelation.SAME


def _facts(environment: Environment) -> Iterator[tuple[str, str | None]]:
    yield "device", environment.device_name
    yield "processor", environment.cpu
    yield "logical cores", str(environment.logical_cores)
    processor, gpu = environment.processor, environment.gpu
    for name in ("vendor", "family", "model", "stepping", "microarchitecture"):
        yield f"CPU {name}", None if processor is None else _text(getattr(processor, name))
    caches = {} if processor is None else processor.cache_bytes
    for level in ("L2", "L3"):
        yield f"{level} cache bytes", _text(caches.get(level))
    classes = [] if processor is None else processor.core_classes
    yield "core classes", " + ".join(str(kind.cores) for kind in classes) or None
    for name, label in (
        ("compute_capability", "GPU compute capability"),
        ("multiprocessors", "GPU multiprocessors"),
        ("power_limit_watts", "GPU power limit"),
        ("max_memory_clock_mhz", "GPU memory clock"),
    ):
        yield label, None if gpu is None else _text(getattr(gpu, name))
    # Records before version 8 do not say whether there was a quota.
    known = "none" if processor is not None else None
    yield "quota", _text(environment.quota_cores) or known


def _text(value: object) -> str | None:
    return None if value is None else str(value)
