"""Machines of one name are kept apart, and what is unknown is never merged with what is known."""

from __future__ import annotations

from typing import Any

import pytest

from bench.records import store
from bench.records.machine_key import MachineKey, MachineRelation, relation_of_all
from bench.records.schema import Environment
from tests.factories import ZEN_4, ZEN_5, make_record

GPU: dict[str, Any] = {
    "compute_capability": "9.0",
    "multiprocessors": 132,
    "power_limit_watts": 700.0,
    "max_memory_clock_mhz": 2619,
    "max_sm_clock_mhz": 1980,
}


def machine(processor: dict[str, Any] | None = ZEN_4, **fields: Any) -> Environment:
    return make_record(environment={"processor": processor, **fields}).environment


def relation(one: Environment, other: Environment) -> MachineRelation:
    found = MachineKey.of(one).relation(MachineKey.of(other))
    assert MachineKey.of(other).relation(MachineKey.of(one)) is found
    return found


def test_two_generations_of_one_name_are_two_machines() -> None:
    old, new = machine(ZEN_4), machine(ZEN_5)
    assert old.cpu == new.cpu
    assert relation(old, new) is MachineRelation.DIFFERENT
    assert MachineKey.of(old).differences(MachineKey.of(new)) == [
        ("CPU family", "25", "26"),
        ("CPU model", "17", "2"),
        ("L1d cache", "32 KiB", "48 KiB"),
    ]


@pytest.mark.parametrize(
    "fields",
    [
        {"cpu": "AMD EPYC 9654"},
        {"logical_cores": 4},
        {"cpu_features": ["avx2"]},
        {"quota_cores": 1.5},
        {"processor": ZEN_4 | {"stepping": 2}},
        {"processor": ZEN_4 | {"core_classes": [{"cores": 1, "max_mhz": None}] * 2}},
        {"processor": ZEN_4 | {"max_mhz": 3700.0}, "base": {"max_mhz": 3600.0}},
        {"gpu": GPU | {"power_limit_watts": 350.0}},
        {"gpu": GPU | {"multiprocessors": 114}},
        {"gpu": GPU | {"max_memory_clock_mhz": 1593}},
    ],
)
def test_each_fact_separates(fields: dict[str, Any]) -> None:
    base = machine(ZEN_4 | fields.pop("base", {}), gpu=GPU)
    other = machine(**{"processor": ZEN_4, "gpu": GPU} | fields)
    assert relation(base, other) is MachineRelation.DIFFERENT
    assert MachineKey.of(base).digest != MachineKey.of(other).digest
    assert store.machine_name(base) != store.machine_name(other)


def test_what_is_unknown_is_never_merged_with_what_is_known() -> None:
    old, known, silent = machine(None), machine(), machine(ZEN_4 | {"stepping": None})
    assert relation(known, machine()) is MachineRelation.SAME
    assert relation(old, machine(None)) is MachineRelation.NAMES_ONLY
    assert relation(old, known) is MachineRelation.UNKNOWN
    assert relation(silent, known) is MachineRelation.UNKNOWN
    assert MachineKey.of(silent).unknown(MachineKey.of(known)) == ["CPU stepping"]
    assert MachineKey.of(old).digest is None
    assert len({store.machine_name(each) for each in (old, known, silent)}) == 3


def test_the_most_doubtful_relation_counts() -> None:
    old, known, other = machine(None), machine(), machine(ZEN_5)
    assert relation_of_all([known]) is MachineRelation.SAME
    assert relation_of_all([old]) is MachineRelation.NAMES_ONLY
    assert relation_of_all([known, known, old]) is MachineRelation.UNKNOWN
    assert relation_of_all([known, old, other]) is MachineRelation.DIFFERENT


def test_a_better_archspec_makes_no_other_machine_of_it() -> None:
    """It knows a processor by a level only until it learns the name; the numbers stay."""
    level = machine(ZEN_4 | {"microarchitecture": "x86_64_v4"})
    named = machine(ZEN_4)
    assert relation(level, named) is MachineRelation.SAME
    assert MachineKey.of(level).digest == MachineKey.of(named).digest
    assert MachineKey.of(level).label == MachineKey.of(level).digest
    assert MachineKey.of(named).label == f"zen4 {MachineKey.of(named).digest}"


def test_a_folder_begins_with_what_can_be_guessed_and_ends_with_the_key() -> None:
    environment = machine()
    digest = MachineKey.of(environment).digest
    assert store.machine_name(environment) == f"amd-epyc-2-cores-zen4-{digest}"
    # On a GPU, the processor's microarchitecture is beside the point.
    gpu = machine(device_name="NVIDIA H200", gpu=GPU)
    assert store.machine_name(gpu) == f"nvidia-h200-2-cores-{MachineKey.of(gpu).digest}"


def test_features_in_another_order_are_the_same() -> None:
    one, other = machine(cpu_features=["a", "b"]), machine(cpu_features=["b", "a"])
    assert relation(one, other) is MachineRelation.SAME
