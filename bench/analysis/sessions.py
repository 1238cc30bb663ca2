"""Sessions: runs that were made close together in time; a machine differs from one to the next.

A machine is as warm, as busy and as fragmented as the hour makes it. The runs of a session share
that, so an interval from them says how well the session's speed is known, not the machine's.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from bench.analysis.result_warnings import autocorrelation
from bench.records.machine_key import MachineKey
from bench.records.schema import RunRecord
from bench.records.sidecars import SESSION_GAP, NoiseFloor, find_machine_noise

DIFFERENT_SESSIONS = (
    "the sides are of different sessions, more than an hour apart, and one machine differs from "
    "session to session by several percent: compare interleaved runs with ab"
)
"""Remark about sides that share no session; `floor_remark` says what was measured."""
SESSION_SHIFT = 0.07
"""Share by which the times of two sessions of one machine differ, at most, as far as was seen: 3.9
to 6.9 % for the same code on the same machine, 80 minutes apart."""


def session_remarks(
    base: Sequence[RunRecord], new: Sequence[RunRecord], *, by_turns: bool
) -> list[str]:
    """A line for each doubt about the times at which the runs were made.

    Args:
        base: the base's runs, in the order in which they were made.
        new: the new side's runs, likewise.
        by_turns: whether the sides took turns; then what lasts several runs is in both.
    """
    if by_turns:
        return []
    remarks = [] if share_session(base, new) else [DIFFERENT_SESSIONS]
    for side, runs in (("base", base), ("new", new)):
        if measured := autocorrelation(runs):
            remarks.append(
                f"{side}: runs resemble the runs before them (lag-1 correlation of ranks "
                f"{measured.coefficient:.2f}), and an interval assumes independent runs: it is too "
                "narrow"
            )
    return remarks


def share_session(base: Sequence[RunRecord], new: Sequence[RunRecord]) -> bool:
    """Whether a session has runs of both sides, or a side has no runs.

    A session ends where nothing runs for more than `SESSION_GAP`.
    """
    spans = sorted(
        (record.started_utc, _end(record), is_new)
        for records, is_new in ((base, False), (new, True))
        for record in records
    )
    if not base or not new:
        return True
    last_end: datetime | None = None
    sides: set[bool] = set()
    for start, end, is_new in spans:
        if last_end is None or start - last_end > SESSION_GAP:
            sides = set()
        sides.add(is_new)
        if len(sides) == 2:
            return True
        last_end = end if last_end is None else max(last_end, end)
    return False


def floor_remark(setup_name: str, record: RunRecord, floors: Iterable[NoiseFloor]) -> str | None:
    """What is known of the noise of a run's machine; None where no floor was measured.

    Args:
        setup_name: name of the run's case.
        record: a run of the base.
        floors: every floor that was measured.
    """
    machine = MachineKey.of(record.environment).digest
    noise = find_machine_noise(setup_name, record.setup.device_name, floors, machine)
    return None if noise is None else str(noise)


def _end(record: RunRecord) -> datetime:
    try:
        return record.started_utc + timedelta(seconds=record.load.elapsed_seconds)
    except OverflowError:  # no year has that second
        return record.started_utc
