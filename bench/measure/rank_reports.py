"""What the reports of all ranks say together: who is missing, who refuses, who differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from bench.text import printable

RankReport = Mapping[str, Any]
"""One rank's report: ``rank``, ``local`` (its index on its machine), ``processes`` (the number of
ranks that it expects), and ``facts`` by name or a ``refusal``."""


def find_miscount(reports: Sequence[RankReport]) -> str | None:
    """Why these ranks are not the parts of one launch; None where they may be."""
    if len({report["processes"] for report in reports}) > 1:
        return (
            "the machines were started as parts of different launches: "
            f"{_by_value(reports, 'processes')}; give all the same --processes and --machines"
        )
    numbers = [report["rank"] for report in reports]
    twice = next((number for number in sorted(numbers) if numbers.count(number) > 1), None)
    if twice is not None:
        return (
            f"two processes say that they are rank {twice}; give every machine a --machine-rank "
            "of its own"
        )
    return None


def find_missing(reports: Sequence[RankReport], world_size: int, timeout_seconds: float) -> str:
    """Which ranks did not report in time."""
    present = {report["rank"] for report in reports}
    missing = sorted(set(range(world_size)) - present)
    return (
        f"of {world_size} processes {len(present)} came within {timeout_seconds:.0f} s; "
        f"{_name_ranks(missing)} did not: see whether every machine was started, with its own "
        "--machine-rank"
    )


def find_refusal(reports: Sequence[RankReport]) -> str | None:
    """The refusal of the lowest rank, with its rank unless all refuse alike; None for none."""
    refusals = {report["rank"]: str(report["refusal"]) for report in reports if "refusal" in report}
    if not refusals:
        return None
    first = min(refusals)
    alike = len(refusals) == len(reports) and len(set(refusals.values())) == 1
    return printable(refusals[first] if alike else f"rank {first}: {refusals[first]}")


def find_difference(reports: Sequence[RankReport]) -> str | None:
    """The first fact that is not the same on all ranks, with its values; None for none."""
    facts = [{"rank": report["rank"], **report["facts"]} for report in reports]
    names = [name for name in facts[0] if name != "rank"]
    differing = [name for name in names if len({fact.get(name) for fact in facts}) > 1]
    if not differing:
        return None
    others = f" (and {', '.join(differing[1:4])}{' ...' if differing[4:] else ''})"
    return printable(
        f"the ranks do not agree on {differing[0]}: {_by_value(facts, differing[0])}"
        f"{others if differing[1:] else ''}; start all of the same code with the same options"
    )


def _by_value(reports: Sequence[RankReport], name: str) -> str:
    """``"256 on rank 1, 128 on ranks 0 and 2"``: the rarest value first."""
    by_value: dict[str, list[int]] = {}
    for report in sorted(reports, key=lambda report: int(report["rank"])):
        by_value.setdefault(str(report.get(name, "unknown")), []).append(report["rank"])
    rarest_first = sorted(by_value.items(), key=lambda item: (len(item[1]), -item[1][0]))
    return ", ".join(f"{value} on {_name_ranks(numbers)}" for value, numbers in rarest_first)


def _name_ranks(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"rank {numbers[0]}"
    shown = [str(number) for number in numbers[:8]]
    if len(numbers) > len(shown):
        return f"ranks {', '.join(shown)} and {len(numbers) - len(shown)} more"
    return f"ranks {', '.join(shown[:-1])} and {shown[-1]}"
