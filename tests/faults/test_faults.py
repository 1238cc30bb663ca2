"""Each promise is kept where its fault is provoked. `./scripts/faults` provokes all of them."""

from __future__ import annotations

import sys

import pytest

from tests.faults.__main__ import BEGIN, END, HEAD, PAGE
from tests.faults.catalogue import catalogue
from tests.faults.harness import Fault, NotPossibleError, provoke, violations


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals of other systems differ")
@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.name, marks=[] if case.in_ci else pytest.mark.thorough)
        for case in catalogue()
    ],
)
def test_what_is_promised_is_kept(case: Fault) -> None:
    try:
        seen = provoke(case)
    except NotPossibleError:
        pytest.skip("this system does not let this user provoke it")
    assert violations(case, seen) == [], f"{seen.err}\n{seen.out}"


def test_the_page_has_every_fault_and_what_is_promised() -> None:
    rows = PAGE.read_text(encoding="utf-8").partition(BEGIN + HEAD)[2].partition(END)[0]
    columns = [[cell.strip() for cell in row.split("|")[1:5]] for row in rows.splitlines()]
    assert [row[:3] for row in columns] == [[c.name, c.how, c.expected] for c in catalogue()]
    assert all(row[3].startswith("as expected") for row in columns)
