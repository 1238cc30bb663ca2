"""Sides of different sessions, and runs that follow each other, are remarked on."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import pytest

from bench.analysis.sessions import DIFFERENT_SESSIONS, session_remarks, share_session
from bench.cli import main
from bench.records import sidecars
from bench.records.schema import RunRecord
from tests.factories import compared, make_benchmark, noisy_runs, saved
from tests.records.test_sidecars import OLD


def later(runs: Sequence[RunRecord], minutes: float) -> list[RunRecord]:
    """The same runs, made so much later."""
    return [
        run.model_copy(update={"started_at": run.started_at + timedelta(minutes=minutes)})
        for run in runs
    ]


BASE, NEW = noisy_runs(0), noisy_runs(1)
"""The second an hour after the first, which takes nine minutes."""


@pytest.mark.parametrize(("minutes", "shared"), [(-60, True), (0, True), (30, False)])
def test_sides_an_hour_apart_are_of_different_sessions(minutes: float, shared: bool) -> None:
    assert share_session(BASE, later(NEW, minutes)) is shared
    assert share_session(later(NEW, minutes), BASE) is shared
    remarks = compared(BASE, later(NEW, minutes)).case.remarks
    assert (DIFFERENT_SESSIONS in remarks) is not shared


def test_one_session_in_common_is_enough() -> None:
    weeks_ago = later(BASE, -20_000)
    assert share_session([*weeks_ago, *BASE], NEW)
    assert not share_session([*weeks_ago, *BASE], later(NEW, 30))
    assert share_session([], NEW)


def test_runs_that_resemble_the_ones_before_are_remarked_on() -> None:
    waves = make_benchmark([6.5 + 0.2 * (number // 5 % 2) for number in range(30)])
    (remark,) = session_remarks(waves, [], by_turns=False)
    assert remark.startswith("base: runs resemble the runs before them (lag-1 correlation")
    # In turns, what lasts for several runs is in both sides.
    assert session_remarks(waves, [], by_turns=True) == []


def test_compare_states_the_floor_that_was_measured(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, new = saved(tmp_path / "a", BASE), saved(tmp_path / "b", later(NEW, 30))
    assert main(["compare", base, new, "--results-dir", str(tmp_path)]) == 0
    assert "noise floor" not in capsys.readouterr().out
    sidecars.write_sidecar(OLD, Path(base))
    assert main(["compare", base, new, "--results-dir", str(tmp_path)]) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the sides are of different sessions" in shown
    assert "noise floor 4.2 % within a session" in shown
    # A broken file ends a gate, not a table.
    Path(base, "broken.noise").write_text("{")
    assert main(["compare", base, new, "--results-dir", str(tmp_path)]) == 0
