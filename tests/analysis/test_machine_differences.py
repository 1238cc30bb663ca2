"""What `compare` says of the machines of two sides."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench.analysis.benchmarks import group_runs
from bench.analysis.cases import Case, match_cases
from bench.analysis.columns import column
from bench.analysis.result_tables import find_entries
from bench.analysis.run_sets import RunSet
from bench.cli import main
from bench.records.machine_key import MachineKey, MachineRelation
from bench.records.schema import RunRecord
from bench.records.store import read_records
from bench.report.results_page import table_line
from mnist_cnn.errors import UsageError
from tests.factories import ZEN_4, ZEN_5, make_benchmark, noisy_runs, saved

WORK = "fp32 product of 512 x 512 matrices on cpu, 2 threads"
CALIBRATED = "the machine itself was"


def runs(
    seed: int, processor: dict[str, Any] | None = ZEN_4, rate: float | None = None, **fields: Any
) -> list[RunRecord]:
    work = fields.pop("work", WORK)
    calibration = rate and {"work": work, "flops_per_second": rate, "seconds": 0.3}
    environment = {"processor": processor, **fields}
    return noisy_runs(seed, count=3, environment=environment, calibration=calibration or None)


def case_of(base: list[RunRecord], new: list[RunRecord]) -> Case:
    (case,) = match_cases(RunSet("base", tuple(base)), RunSet("new", tuple(new))).cases
    return case


def test_one_machine_needs_no_remark() -> None:
    case = case_of(runs(0), runs(1))
    assert (case.machine_relation, case.same_machine) == (MachineRelation.SAME, True)
    assert case.remarks == ()


def test_another_machine_of_the_same_name_is_named_fact_by_fact() -> None:
    case = case_of(runs(0), runs(1, ZEN_5))
    assert (case.machine_relation, case.same_machine) == (MachineRelation.DIFFERENT, False)
    assert case.remarks == (
        "microarchitecture differs: zen4 (base), zen5 (new)",
        "CPU family differs: 25 (base), 26 (new)",
        "CPU model differs: 17 (base), 2 (new)",
        "L1d cache differs: 32 KiB (base), 48 KiB (new)",
    )


def test_a_quota_makes_another_machine() -> None:
    case = case_of(runs(0), runs(1, quota_cores=1.5))
    assert "CPU quota in cores differs: none (base), 1.5 (new)" in case.remarks
    assert not case.same_machine


def test_names_alone_are_compared_with_a_warning() -> None:
    """As for all records before version 8."""
    case = case_of(runs(0, None), runs(1, None))
    assert (case.machine_relation, case.same_machine) == (MachineRelation.NAMES_ONLY, True)
    (remark,) = case.remarks
    assert "equal names do not show that it is one machine" in remark


def test_an_old_record_beside_a_new_one_is_compared_with_a_warning() -> None:
    case = case_of(runs(0, None), runs(1))
    assert (case.machine_relation, case.same_machine) == (MachineRelation.UNKNOWN, True)
    assert case.remarks == (
        "which machine it was is not fully known in base: its records hold names only",
    )


def test_what_one_side_does_not_know_is_named() -> None:
    case = case_of(runs(0), runs(1, ZEN_4 | {"stepping": None, "cache_bytes": {}}))
    assert case.machine_relation is MachineRelation.UNKNOWN
    assert case.remarks == (
        "which machine it was is not fully known in new: "
        "CPU stepping, L1d cache, L2 cache, L3 cache",
    )


@pytest.mark.parametrize("other", [ZEN_5, None])
def test_a_side_of_two_machines_is_refused(other: dict[str, Any] | None) -> None:
    with pytest.raises(UsageError, match=r"base holds runs of .* one machine: .*CPU model"):
        case_of([*runs(0), *runs(2, other)], runs(1))


# The calibration


def test_the_machines_own_speed_is_remarked_upon_from_ten_percent() -> None:
    assert (
        f"new: {CALIBRATED} 2.1 times as fast (calibration)"
        in case_of(runs(0, rate=1e11), runs(1, rate=2.1e11)).remarks
    )
    assert (
        f"new: {CALIBRATED} 0.5 times as fast (calibration)"
        in case_of(runs(0, rate=2e11), runs(1, rate=1e11)).remarks
    )
    assert case_of(runs(0, rate=1e11), runs(1, rate=1.09e11)).remarks == ()


def test_unequal_work_and_a_missing_calibration_say_nothing() -> None:
    base = runs(0, rate=1e11)
    for new in (runs(1), runs(1, rate=3e11, work=f"{WORK}, 2 processes at a time")):
        assert not any(CALIBRATED in remark for remark in case_of(base, new).remarks)


def test_nothing_is_normalised_by_it(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    printed = []
    for rate in (1e11, 3e11):
        base, new = (
            saved(tmp_path / f"{name}{rate}", runs(seed, rate=side_rate))
            for name, seed, side_rate in (("a", 0, 1e11), ("b", 1, rate))
        )
        assert main(["compare", base, new]) == 0
        lines = capsys.readouterr().out.splitlines()
        printed.append([line for line in lines if line.startswith(("time ", "accuracy "))])
    assert printed[0]
    assert printed[0] == printed[1]


# Two folders of one name


def test_the_committed_epyc_folders_are_compared_with_a_warning(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their records are of versions 1, 2 and 7: all that is known of both machines is equal."""
    monkeypatch.setenv("COLUMNS", "200")
    folders = ["results/studies/epyc-plain-epochs", "results/studies/epyc-scaling"]
    records = read_records(map(Path, ["results/amd-epyc-2-cores", *folders])).records
    assert len({MachineKey.of(record.environment) for _, record in records}) == 1
    assert main(["compare", *folders]) == 0
    printed = capsys.readouterr().out
    assert "! only the names of the machines are known, and equal names do not show" in printed
    assert "record schema differs: 2 (base), 7 (new)" in printed


def test_the_same_comparison_of_version_8_names_the_difference(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "200")
    saved(tmp_path, runs(0, ZEN_4, rate=2e11))
    saved(tmp_path, runs(1, ZEN_5, rate=4.2e11))
    zen_4, zen_5 = sorted(path for path in tmp_path.iterdir())
    assert zen_4.name.startswith("amd-epyc-2-cores-zen4-")
    assert zen_5.name.startswith("amd-epyc-2-cores-zen5-")
    assert main(["compare", str(zen_4), str(zen_5)]) == 0
    printed = capsys.readouterr().out
    assert "! microarchitecture differs: zen4 (base), zen5 (new)" in printed
    assert "! CPU family differs: 25 (base), 26 (new)" in printed
    assert "! new: the machine itself was 2.1 times as fast (calibration)" in printed
    assert "only the names" not in printed


# Tables


def test_runs_of_two_machines_are_two_benchmarks_and_two_rows() -> None:
    benchmark = make_benchmark(environment={"processor": ZEN_4})
    moved = benchmark[2].environment.model_copy(
        update={"processor": runs(0, ZEN_5)[0].environment.processor}
    )
    records = [*benchmark[:2], benchmark[2].model_copy(update={"environment": moved})]
    found = group_runs((None, record) for record in records)
    assert [len(each.runs) for each in found] == [2, 1]
    labels = [column("machine").cell(each.runs[0]) for each in found]
    assert labels == [MachineKey.of(each.records[0].environment).label for each in found]
    assert len(set(labels)) == 2
    entries = find_entries([(None, record) for record in records], Path())
    lines = [table_line(entry) for entry in entries]
    assert "AMD EPYC (zen4 " in lines[0]
    assert "AMD EPYC (zen5 " in lines[1]


def test_the_page_names_the_device_alone_where_no_more_is_known() -> None:
    (entry,) = find_entries([(None, record) for record in make_benchmark()], Path())
    assert "| `AMD EPYC` |" in table_line(entry)


def test_a_table_shows_the_machine_where_it_is_known(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old, known = (
        saved(tmp_path / name, make_benchmark(environment={"processor": processor}))
        for name, processor in (("old", None), ("known", ZEN_5))
    )
    assert main(["report", old, "--to", "markdown"]) == 0
    assert "| machine |" not in capsys.readouterr().out
    assert main(["report", known, "--to", "markdown"]) == 0
    printed = capsys.readouterr().out
    assert "| device | machine |" in printed
    assert "`zen5 " in printed
