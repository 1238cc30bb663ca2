"""Every forgery that can be found is found by the check that is named for it; others are listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.machine.repository import read_history
from bench.verify import checks
from bench.verify.check_list import CHECKS
from bench.verify.checks import CheckOutcome
from tests.verify.forgeries import (
    FOUND,
    HIDDEN,
    Benchmarks,
    Forgery,
    committed_benchmarks,
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


def test_the_honest_folder_passes(benchmarks: Benchmarks, tmp_path: Path) -> None:
    write_chained(benchmarks, tmp_path / "honest")
    assert findings(tmp_path / "honest") == {}


@pytest.mark.parametrize("forgery", FOUND, ids=lambda forgery: forgery.name)
def test_a_forgery_is_found_by_its_check(
    forgery: Forgery, benchmarks: Benchmarks, tmp_path: Path
) -> None:
    forgery.forge(benchmarks, tmp_path / "forged")
    found = findings(tmp_path / "forged")
    assert forgery.check in found, found
    assert any(forgery.says in text for text in found[forgery.check]), found[forgery.check][:3]


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
