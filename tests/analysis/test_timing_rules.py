"""Four clocks from one record, and every second that each leaves out."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given

from bench.analysis.metrics import cold_time_to_target_seconds, time_to_target_seconds
from bench.analysis.timing_rules import Span, TimingRule, seconds_by_span, timed_results
from bench.cli import main
from bench.records.schema import RunRecord
from bench.records.store import save_record
from tests.factories import make_benchmark, make_record, records


def test_the_clocks_of_a_run() -> None:
    """Five epochs to the target, 6.5 s training and 0.6 s evaluation each, 0.4 s before."""
    record = make_record()
    found = {reading.clock: reading for reading in timed_results([record])}
    assert found[TimingRule.MLPERF].seconds == pytest.approx(0.4 + 5 * 7.1)
    assert found[TimingRule.MLPERF].seconds == pytest.approx(time_to_target_seconds(record))
    assert found[TimingRule.ALGOPERF].seconds == pytest.approx(0.4 + 5 * 6.5)
    assert found[TimingRule.SPEEDRUN].seconds == pytest.approx(5 * 6.5)
    assert found[TimingRule.COLD].seconds == pytest.approx(7.5 + 0.4 + 5 * 7.1)
    assert found[TimingRule.COLD].seconds == pytest.approx(cold_time_to_target_seconds(record))
    assert found[TimingRule.COLD].excluded == {}
    assert found[TimingRule.MLPERF].excluded == pytest.approx({Span.STARTUP: 4.5, Span.WARMUP: 3.0})
    assert found[TimingRule.ALGOPERF].excluded[Span.EVAL] == pytest.approx(3.0)


@pytest.mark.slow
@given(records())
def test_no_second_is_lost(record: RunRecord) -> None:
    """What a clock counts and what it leaves out is, together, all there is."""
    items = seconds_by_span(record)
    if items is None:
        assert timed_results([record]) == []
        return
    for reading in timed_results([record]):
        whole = reading.seconds + sum(reading.excluded.values())
        assert whole == pytest.approx(sum(items.values()), rel=1e-9, abs=1e-9)


def test_the_table(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    for record in make_benchmark():
        save_record(record, tmp_path)
    assert main(["report", "--clocks", str(tmp_path)]) == 0
    table = capsys.readouterr().out
    assert all(clock.value in table for clock in TimingRule)
    assert "without warm-up" in table
    assert main(["report", "--clocks", "--to", "csv", str(tmp_path)]) == 2
    missed = tmp_path / "missed"
    save_record(make_record(accuracies=(0.9, 0.91)), missed)
    assert main(["report", "--clocks", str(missed)]) == 0
    assert "no run reached the target" in capsys.readouterr().out
