"""Every forgery that can be found is found by the check that is named for it; others are listed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bench.machine.repository import read_history
from bench.records import benchmark_plan, store
from bench.records.schema import SCHEMA_VERSION, Fallback
from bench.verify import checks
from bench.verify.check_list import CHECKS
from bench.verify.checks import CheckOutcome
from tests.verify.forgeries import (
    FOUND,
    HIDDEN,
    Benchmarks,
    Forgery,
    committed_benchmarks,
    plan_of,
    write_benchmark,
    write_chained,
)

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "contributing-results.md"


HISTORY = read_history()


@pytest.fixture(scope="module")
def read_once() -> Benchmarks:
    if HISTORY.unknown is not None:
        pytest.skip("not a whole git checkout")
    return committed_benchmarks(ROOT / "results")


@pytest.fixture
def benchmarks(read_once: Benchmarks) -> Benchmarks:
    """The honest runs, for a forger to change."""
    return [list(records) for records in read_once]


def findings(folder: Path) -> dict[str, list[str]]:
    """What each check that does not pass finds."""
    read = checks.read_folder(folder, HISTORY, frozenset())
    results = checks.run_checks(read, CHECKS)
    return {
        result.check.name: [finding.text for finding in result.findings]
        for result in results
        if result.outcome is not CheckOutcome.PASS
    }


@pytest.mark.slow
def test_the_honest_folder_passes(benchmarks: Benchmarks, tmp_path: Path) -> None:
    write_chained(benchmarks, tmp_path / "honest")
    assert findings(tmp_path / "honest") == {}


@pytest.mark.slow
def test_attempts_whose_planned_runs_are_not_all_complete_are_counted(
    benchmarks: Benchmarks, tmp_path: Path
) -> None:
    write_chained(benchmarks, tmp_path / "honest")

    def notes() -> list[str]:
        read = checks.read_folder(tmp_path / "honest", HISTORY, frozenset())
        (plans,) = (r for r in checks.run_checks(read, CHECKS) if r.check.name == "plans")
        return [note for note in plans.notes if "at this set-up" in note]

    before = notes()
    assert all(re.search(r": (\d+) attempts? at this set-up, \1 complete$", r) for r in before)
    (tmp_path / "honest" / store.file_name(benchmarks[0][-1])).unlink()
    changed = [line for line in notes() if line not in before]
    assert len(changed) == 1
    attempts, complete = map(int, re.findall(r"(\d+) (?:attempt|complete)", changed[0]))
    assert complete == attempts - 1


@pytest.mark.slow
@pytest.mark.parametrize("forgery", FOUND, ids=lambda forgery: forgery.name)
def test_a_forgery_is_found_by_its_check(
    forgery: Forgery, benchmarks: Benchmarks, tmp_path: Path
) -> None:
    forgery.forge(benchmarks, tmp_path / "forged")
    found = findings(tmp_path / "forged")
    assert forgery.check in found, found
    assert any(forgery.says in text for text in found[forgery.check]), found[forgery.check][:3]


@pytest.mark.slow
def test_records_whose_plan_is_gone_are_missed_by_each_of_them(
    benchmarks: Benchmarks, tmp_path: Path
) -> None:
    write_chained(benchmarks, tmp_path / "forged")
    benchmark_plan.plan_files(tmp_path / "forged")[-1].unlink()
    assert findings(tmp_path / "forged")["plans"] == [
        f"{store.file_name(record)}: the plan that it names is not here"
        for record in sorted(benchmarks[1], key=store.file_name)
    ]


@pytest.mark.slow
def test_an_edit_of_a_benchmarks_last_record_shows_in_the_next_plan(
    benchmarks: Benchmarks, tmp_path: Path
) -> None:
    write_chained(benchmarks, tmp_path / "forged")
    last = tmp_path / "forged" / store.file_name(benchmarks[0][-1])
    last.write_text(last.read_text().replace('"label": null', '"label": "quiet"'))
    _, plan = benchmark_plan.plan_files(tmp_path / "forged")
    assert (
        f"{plan.name}: the record before it is not here, or was edited"
        in (findings(tmp_path / "forged")["plans"])
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "planned"),
    [
        ("benchmark", {"benchmark_id": "c" * 32}),
        ("recipe", {"recipe": {"name": "reference"}}),
        ("seed", {"first_seed": 1}),
        ("commit", {"commit": "f" * 40}),
        ("commit", {"dirty": True}),
        ("machine", {"machine": "abc123"}),
    ],
)
def test_a_record_of_something_else_than_was_planned_is_found(
    name: str, planned: dict[str, object], benchmarks: Benchmarks, tmp_path: Path
) -> None:
    records = benchmarks[1]
    plan = plan_of(records, tmp_path).model_copy(update=planned)
    write_benchmark(plan, records, tmp_path)
    says = f": its {name} is not what its plan says"
    assert [says in text for text in findings(tmp_path)["plans"]] == [True] * len(records)


@pytest.mark.parametrize("field", ["protocol", "setup"])
def test_other_conditions_than_were_planned_are_found(
    field: str, benchmarks: Benchmarks, tmp_path: Path
) -> None:
    records = benchmarks[1]
    plan = plan_of(records, tmp_path)
    changes = {"protocol": {"warmup_images": 1}, "setup": {"threads": 7}}[field]
    other = getattr(plan, field).model_copy(update=changes)
    write_benchmark(plan.model_copy(update={field: other}), records, tmp_path)
    name = {"protocol": "protocol", "setup": "set-up"}[field]
    found = findings(tmp_path)["plans"]
    assert len(found) == len(records)
    assert all(text.endswith(f": its {name} is not what its plan says") for text in found)


@pytest.mark.slow
@pytest.mark.parametrize("field", ["captured", "uncaptured_reason"])
def test_what_only_the_first_run_shows_may_differ_from_the_plan(
    field: str, benchmarks: Benchmarks, tmp_path: Path
) -> None:
    plan = plan_of(benchmarks[1], tmp_path)
    value = {"captured": True, "uncaptured_reason": "not yet known"}[field]
    other = plan.setup.model_copy(update={field: value})
    write_benchmark(plan.model_copy(update={"setup": other}), benchmarks[1], tmp_path)
    assert "plans" not in findings(tmp_path)


@pytest.mark.parametrize("failed_later", [False, True])
def test_other_kernels_than_were_planned_need_a_failure_after_the_plan(
    failed_later: bool, benchmarks: Benchmarks, tmp_path: Path
) -> None:
    failure = Fallback(kernels="triton", captured=True, kernel_shapes=None, reason="OSError: no")
    plan = plan_of(benchmarks[1], tmp_path)
    changes = {"kernels": "triton", "fallbacks": [] if failed_later else [failure]}
    planned = plan.model_copy(update={"setup": plan.setup.model_copy(update=changes)})
    records = [
        record.model_copy(
            update={
                "schema_version": SCHEMA_VERSION,
                "setup": record.setup.model_copy(update={"fallbacks": [failure]}),
            }
        )
        for record in benchmarks[1]
    ]
    write_benchmark(planned, records, tmp_path)
    problems = findings(tmp_path).get("plans", [])
    assert [text.endswith("its set-up is not what its plan says") for text in problems] == (
        [] if failed_later else [True] * len(records)
    )


@pytest.mark.slow
@pytest.mark.parametrize("forgery", HIDDEN, ids=lambda forgery: forgery.name)
def test_what_no_check_can_find_is_listed(
    forgery: Forgery, benchmarks: Benchmarks, tmp_path: Path
) -> None:
    forgery.forge(benchmarks, tmp_path / "forged")
    assert findings(tmp_path / "forged") == {}
    assert f"**{forgery.name}**" in " ".join(DOCUMENT.read_text(encoding="utf-8").split())


def test_the_document_names_the_check_of_every_forgery() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    for forgery in FOUND:
        assert f"| {forgery.name} | {forgery.check} |" in text, forgery.name
    assert len(FOUND) >= 12
