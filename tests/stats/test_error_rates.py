"""How often `ab` and the gate are wrong, and what they see, at a real machine's noise.

The eighteen rounds of equal sides in results/studies/xeon-ab, drawn again and again (the
bootstrap), the sides of a round swapped by chance: so nothing has changed, whatever those were.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cache
from pathlib import Path
from statistics import stdev

import pytest

from bench.analysis.case_comparison import seconds_per_image
from bench.analysis.cases import Case, CaseMatch, match_cases
from bench.analysis.comparison import GATE_TAIL, TAIL, Comparison, Verdict
from bench.analysis.gate import GateOutcome, Limits, judge, overall_outcome
from bench.analysis.run_sets import RunSet
from bench.launch.ab import LOOKS, is_clear
from bench.records import store
from bench.records.schema import Lap, LapKind, RunRecord

ROOT = Path(__file__).resolve().parents[2]
MEASURED = ROOT / "results" / "studies" / "xeon-ab"
WANTED = 0.05


@cache
def rounds() -> list[tuple[RunRecord, RunRecord]]:
    """The real pairs."""
    found = store.read_records([MEASURED]).records
    of_floor = [record for _, record in found if (record.label or "").startswith("floor-")]
    of_floor.sort(key=lambda record: record.started_utc)
    return list(zip(of_floor[::2], of_floor[1::2], strict=True))


@cache
def real_case() -> Case:
    """What `match_cases` says of the real pairs; other times change nothing in it but the runs."""
    base, new = zip(*rounds(), strict=True)
    (case,) = match_cases(RunSet("a", base), RunSet("b", new)).cases
    return case


@cache
def laps_of(run_id: str, slower: float) -> list[Lap]:
    """Those of a real run, its training laps so many times as long."""
    (record,) = [run for pair in rounds() for run in pair if run.run_id == run_id]
    return [
        lap.model_copy(update={"seconds": lap.seconds * slower})
        if lap.kind is LapKind.TRAIN
        else lap
        for lap in record.laps
    ]


def placed(record: RunRecord, slower: float, minute: int) -> RunRecord:
    """The run as if it had started then, each image taking so many times as long."""
    laps = laps_of(record.run_id, slower)
    start = rounds()[0][0].started_at + timedelta(minutes=minute)
    fresh = {"laps": laps, "started_at": start, "run_id": f"{minute:032x}"}
    return record.model_copy(update=fresh)


@dataclass(frozen=True, slots=True)
class Ended:
    """One use of `ab`."""

    says: Verdict
    rounds: int
    gate: GateOutcome
    """The gate's word on the same runs, its chance to err not shared among looks."""


def by_turns(chance: random.Random, slower: float, allowed: float) -> Ended:
    """What `ab` does, with runs that take no time; then the gate, on what it left."""
    base: list[RunRecord] = []
    new: list[RunRecord] = []
    case = real_case()
    for index in range(LOOKS[-1]):
        pair = list(chance.choice(rounds()))
        chance.shuffle(pair)
        base.append(placed(pair[0], 1.0, 2 * index))
        new.append(placed(pair[1], slower, 2 * index + 1))
        if index + 1 in LOOKS:
            case = replace(case, all_base=tuple(base), all_new=tuple(new))
            line = seconds_per_image(case, len(LOOKS), WANTED)
            if is_clear(line):
                break
    of_gate = seconds_per_image(case, 1, allowed)
    alone = Comparison(case, paired=True, lines=(of_gate,), gate_tail=GATE_TAIL)
    outcome = overall_outcome(judge(CaseMatch((case,), (), ()), [alone], Limits(allowed)))
    return Ended(line.verdict, len(base), outcome)


def seconds(record: RunRecord) -> float:
    """Those of its training laps."""
    return sum(lap.seconds for lap in record.laps if lap.kind is LapKind.TRAIN)


def shares(slower: float, allowed: float, times: int) -> tuple[float, float, float]:
    """Of that many uses: `ab` says worse, it says better, the gate fires."""
    chance = random.Random(0)
    ends = [by_turns(chance, slower, allowed) for _ in range(times)]
    return (
        sum(end.says is Verdict.WORSE for end in ends) / times,
        sum(end.says is Verdict.BETTER for end in ends) / times,
        sum(end.gate is GateOutcome.REGRESSION for end in ends) / times,
    )


@pytest.mark.slow
def test_false_alarms_stay_below_the_stated_rates() -> None:
    """With three looks; the gate on what the looks left, with nothing allowed."""
    worse, better, fires = shares(slower=1.0, allowed=0.0, times=300)
    assert worse + better <= 2 * TAIL
    # 5 %, and what chance adds in 300 once in a hundred times.
    assert 0 < fires <= GATE_TAIL + 0.03


@pytest.mark.thorough
def test_the_documents_rates() -> None:
    """The table of docs/statistics.md, computed again."""
    lines = []
    for slower, allowed in ((1.0, 0.0), (1.05, 0.05), (1.10, 0.05), (1.15, 0.05)):
        worse, better, fires = (100 * share for share in shares(slower, allowed, times=1000))
        change = "as fast" if slower == 1 else f"{100 * (slower - 1):.0f} % slower"
        cells = f"{worse:.1f} % | {better:.1f} % | {100 * allowed:.0f} % | {fires:.1f} %"
        lines.append(f"| {change} | {cells} |")
    noise = stdev(math.log(seconds(new) / seconds(base)) for base, new in rounds())
    lines.append(f"{100 * noise:.1f} % (standard deviation)")
    document = (ROOT / "docs" / "statistics.md").read_text(encoding="utf-8")
    for line in lines:
        assert line in document, "\n".join(lines)
