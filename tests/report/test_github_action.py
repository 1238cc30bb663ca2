"""github-action-benchmark's format, held against its documented shape."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given, strategies as st
from pydantic import BaseModel, ConfigDict, RootModel

from bench.analysis.columns import MEASURED, columns_with
from bench.report.formats.github_action import (
    UNITS,
    to_github_action_bigger,
    to_github_action_smaller,
)
from bench.report.formats.tracked import LONGEST_PART
from tests.factories import ENERGY, make_record
from tests.report.exports import HOSTILE, benchmarks_of, report


class Entry(BaseModel):
    """README of benchmark-action/github-action-benchmark, "customSmallerIsBetter"."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    unit: str
    value: float
    range: str = ""
    extra: str = ""


class Entries(RootModel[list[Entry]]):
    """The whole file; the action refuses an empty one."""


def test_github_action_has_a_file_a_direction(real: Path, tmp_path: Path) -> None:
    files = {}
    for kind in ("smaller", "bigger"):
        path = tmp_path / f"{kind}.json"
        assert report(f"github-action-{kind}", real, "--output", path) == 0
        files[kind] = Entries.model_validate_json(path.read_bytes()).root
    assert {entry.unit for entry in files["smaller"]} == {"s", "bytes", "count"}
    assert {entry.unit for entry in files["bigger"]} == {"images/s", "fraction"}
    names = [entry.name for entries in files.values() for entry in entries]
    assert len(names) == len(set(names))
    (accuracy,) = (
        entry for entry in files["bigger"]
        if entry.name == "fast on Intel(R) Xeon(R) Processor, 1 process, 2 threads, bf16 amx: "
        "final_accuracy"
    )  # fmt: skip
    assert accuracy.value == pytest.approx(0.99434)
    # The action reads ranges of this form as numbers.
    number = re.fullmatch(r"± (\d.*)", accuracy.range)
    assert number
    assert float(number[1]) == pytest.approx(0.00025, abs=0.00001)
    assert accuracy.extra.splitlines()[0] == ("20 runs, 15 reached 99.4 %, 8.10 s a success")
    assert "! missed the target" in accuracy.extra


@pytest.mark.slow
@given(st.text(), st.text(), st.text())
def test_no_text_leaves_its_cell_of_the_actions_comment(label: str, device: str, name: str) -> None:
    """There, a name stands in backticks in a cell of a table in Markdown."""
    run = make_record(label=label + HOSTILE, setup={"device_name": device}, recipe={"name": name})
    for text in (
        to_github_action_smaller(benchmarks_of([run])).text,
        to_github_action_bigger(benchmarks_of([run])).text,
    ):
        for entry in Entries.model_validate_json(text).root:
            for part in (entry.name, entry.unit, entry.range):
                assert not set("`|<>@\n\r") & set(part)
                assert part.isprintable()
            assert len(entry.name) < 4 * LONGEST_PART


def test_energy_is_a_measure_like_others() -> None:
    text = to_github_action_smaller(benchmarks_of([make_record(energy=ENERGY)])).text
    units = {
        entry.name.rpartition(": ")[2]: entry.unit
        for entry in Entries.model_validate_json(text).root
    }
    assert units["energy_joules"] == units["host_energy_joules"] == "J"


def test_every_measure_has_a_unit() -> None:
    assert {column.unit for column in columns_with(MEASURED)} <= UNITS.keys()
