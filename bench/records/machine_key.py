"""Which machine a record is of: the key that keeps unlike machines apart.

A name is no identity: two generations of processors both call themselves "AMD EPYC". Two keys are
of one machine only where every fact is known in both and equal. What an older record did not store
is unknown: it is compared with a warning, and never merged with what is known.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from bench.records.machine import Environment, Gpu, Processor

_DIGEST_LETTERS = 6
_GENERIC = ("x86", "x86_64", "aarch64", "arm", "ppc", "riscv64", "unknown", "armv", "generic")
"""Beginnings of archspec's names for processors that it does not know."""


class MachineRelation(StrEnum):
    """What two keys say of two machines."""

    SAME = "the same kind of machine"
    NAMES_ONLY = "only the names of the machines are known, and they are equal"
    UNKNOWN = "nothing known differs, but not everything is known"
    DIFFERENT = "different machines"


@dataclass(frozen=True, slots=True)
class MachineKey:
    """Facts that decide how fast a machine is; equal keys are the same kind of machine."""

    facts: tuple[tuple[str, str | None], ...]
    """Each fact's name, as messages give it, and its value; None where it is not known."""
    is_identified: bool
    """Whether more than names is known; False for records before version 8."""
    microarchitecture: str | None = field(default=None, compare=False)
    """archspec's name; None where it is not known. For people only, because it follows from other
    facts, and a later archspec may name the same processor better."""

    @classmethod
    def of(cls, environment: Environment) -> MachineKey:
        """The key of the machine that an environment describes."""
        processor = environment.processor
        name = None if processor is None else processor.microarchitecture
        return cls(
            facts=tuple(_facts(environment)),
            is_identified=processor is not None,
            microarchitecture=None if name is None or name.startswith(_GENERIC) else name,
        )

    @property
    def digest(self) -> str | None:
        """A short name of the key for folders and tables; None for records before version 8."""
        if not self.is_identified:
            return None
        return hashlib.sha256(repr(self.facts).encode()).hexdigest()[:_DIGEST_LETTERS]

    @property
    def label(self) -> str | None:
        """The key for people: ``"zen5 1f2e3d"``; None for records before version 8."""
        digest = self.digest
        return None if digest is None else " ".join(filter(None, (self.microarchitecture, digest)))

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
        if self.unknown(other) or self.is_identified != other.is_identified:
            return MachineRelation.UNKNOWN
        return MachineRelation.SAME if self.is_identified else MachineRelation.NAMES_ONLY


_BY_DOUBT = (
    MachineRelation.SAME,
    MachineRelation.NAMES_ONLY,
    MachineRelation.UNKNOWN,
    MachineRelation.DIFFERENT,
)


def relation_of_all(environments: Iterable[Environment]) -> MachineRelation:
    """The most doubtful relation between any two of one or more environments."""
    keys = list(dict.fromkeys(map(MachineKey.of, environments)))
    relations: Sequence[MachineRelation] = [
        one.relation(other) for index, one in enumerate(keys) for other in keys[index:]
    ]
    return max(relations, key=_BY_DOUBT.index)


def _facts(environment: Environment) -> Iterator[tuple[str, str | None]]:
    yield "device", environment.device_name
    yield "processor", environment.cpu
    yield "CPU features", ", ".join(sorted(environment.cpu_features)) or "none"
    yield "logical cores", str(environment.logical_cores)
    yield from _processor_facts(environment.processor)
    yield from _gpu_facts(environment.gpu)
    # Records before version 8 do not say whether there was a quota.
    without = None if environment.processor is None else "none"
    quota = environment.quota_cores
    yield "CPU quota in cores", without if quota is None else f"{quota:g}"


def _processor_facts(processor: Processor | None) -> Iterator[tuple[str, str | None]]:
    for name in ("vendor", "family", "model", "stepping"):
        yield f"CPU {name}", None if processor is None else _text(getattr(processor, name))
    caches = {} if processor is None else processor.cache_bytes
    for level in ("L1d", "L2", "L3"):
        yield f"{level} cache", None if level not in caches else f"{caches[level] // 1024} KiB"
    classes = [] if processor is None else processor.core_classes
    yield "core classes", " + ".join(str(kind.cores) for kind in classes) or None
    max_mhz = None if processor is None else processor.max_mhz
    yield "highest clock", None if max_mhz is None else f"{max_mhz:.0f} MHz"


def _gpu_facts(gpu: Gpu | None) -> Iterator[tuple[str, str | None]]:
    for name, label, unit in (
        ("compute_capability", "GPU compute capability", ""),
        ("multiprocessors", "GPU multiprocessors", ""),
        ("power_limit_watts", "GPU power limit", " W"),
        ("max_memory_clock_mhz", "GPU memory clock", " MHz"),
        ("max_sm_clock_mhz", "GPU clock", " MHz"),
    ):
        value = None if gpu is None else getattr(gpu, name)
        text = f"{value:g}" if isinstance(value, float) else _text(value)
        yield label, None if text is None else f"{text}{unit}"


def _text(value: object) -> str | None:
    return None if value is None else str(value)
