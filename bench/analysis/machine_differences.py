"""In what the machines of two sides differ, what is not known of them, and how fast they were."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from statistics import median

from bench.analysis.differences import REMARKED, describe_difference
from bench.records.machine_key import MachineKey, MachineRelation, relation_of_all
from bench.records.schema import RunRecord
from bench.text import printable

LEAST_CALIBRATION_DIFFERENCE = 0.10
"""Difference of the machines' own speeds that counts. Ten calibrations of one shared machine within
minutes differed by up to 14 %, and eight of them by 3 %."""
_REMARKED = {name for name, _ in REMARKED}
_ONLY_NAMES = (
    "only the names of the machines are known, and equal names do not show that it is one machine: "
    "records before version 8 hold no more"
)


def machine_relation(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> MachineRelation:
    """What the two sides' records say of their machines, each side one run or more."""
    records = (*base, *new)
    if len({record.setup.device_name for record in records}) > 1:
        return MachineRelation.DIFFERENT
    return relation_of_all(record.environment for record in records)


def machine_remarks(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> list[str]:
    """A line for each known difference of the machines, and for each doubt about them.

    Differences that `REMARKED` has, such as the names, are left out.
    """
    base_keys, new_keys = (_keys(side) for side in (base, new))
    lines = _difference_lines(base_keys, new_keys)
    match machine_relation(base, new):
        case MachineRelation.NAMES_ONLY:
            lines.append(_ONLY_NAMES)
        case MachineRelation.UNKNOWN:
            lines += _unknown_lines("base", base_keys, new_keys)
            lines += _unknown_lines("new", new_keys, base_keys)
        case _:
            pass
    ratio = calibration_ratio(base, new)
    if ratio is not None and _counts(ratio):
        lines.append(f"new: the machine itself was {ratio:.2g} times as fast (calibration)")
    return lines


def calibration_ratio(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> float | None:
    """The new side's median calibration by the base's; above 1 where its machine was faster.

    None where a run has none, or where they did not do equal work.
    """
    calibrations = [record.calibration for record in (*base, *new)]
    if None in calibrations or len({c.work for c in calibrations if c is not None}) != 1:
        return None
    base_rate, new_rate = (
        median(r.calibration.flops_per_second for r in side if r.calibration is not None)
        for side in (base, new)
    )
    return new_rate / base_rate


def machine_slowdown(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> float | None:
    """Time of equal work on the new side's machine, as a multiple of the base's, by calibration.

    1 where the difference is within the calibrations' own noise; None as `calibration_ratio`.
    """
    ratio = calibration_ratio(base, new)
    if ratio is None:
        return None
    return 1 / ratio if _counts(ratio) else 1.0


def _counts(ratio: float) -> bool:
    return max(ratio, 1 / ratio) > 1 + LEAST_CALIBRATION_DIFFERENCE


def differing_facts(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> str:
    """The known facts in which the two sides' machines differ, in one line; empty for none.

    The devices' names stand for facts that are not known.
    """
    different = [
        f"{name} {here} (base), {there} (new)"
        for key, other in product(_keys(base), _keys(new))
        for name, here, there in key.differences(other)
    ]
    if not different:
        devices = product(*({run.setup.device_name for run in side} for side in (base, new)))
        different = sorted(f"device {a} (base), {b} (new)" for a, b in devices if a != b)
    return printable("; ".join(dict.fromkeys(different)))


def unknown_facts(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> str:
    """The facts that only one side knows of its machine, in one line; empty for none."""
    pairs = product(_keys(base), _keys(new))
    names = (name for key, other in pairs for name in key.unknown(other))
    return printable(", ".join(dict.fromkeys(names)))


def _keys(records: Sequence[RunRecord]) -> list[MachineKey]:
    return list(dict.fromkeys(MachineKey.of(record.environment) for record in records))


def _difference_lines(base: Sequence[MachineKey], new: Sequence[MachineKey]) -> list[str]:
    lines = []
    architectures = [{key.microarchitecture for key in keys} - {None} for keys in (base, new)]
    if all(architectures) and architectures[0] != architectures[1]:
        lines.append(describe_difference("microarchitecture", *architectures))
    for index, (name, _) in enumerate(base[0].facts):
        values = [{key.facts[index][1] for key in keys} - {None} for keys in (base, new)]
        if name not in _REMARKED and all(values) and len(values[0] | values[1]) > 1:
            lines.append(describe_difference(name, *values))
    return lines


def _unknown_lines(
    side: str, keys: Sequence[MachineKey], others: Sequence[MachineKey]
) -> list[str]:
    """What a side does not know of its machine, and the other side knows of its own."""
    if not all(key.is_identified for key in keys):
        return [f"which machine it was is not fully known in {side}: its records hold names only"]
    names = [
        name
        for index, (name, value) in enumerate(keys[0].facts)
        if value is None and any(other.facts[index][1] is not None for other in others)
    ]
    unknown = ", ".join(names)
    return [f"which machine it was is not fully known in {side}: {unknown}"] if names else []
