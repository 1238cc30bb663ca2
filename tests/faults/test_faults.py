"""Each promise is kept where its fault is provoked. `./scripts/faults` provokes all of them."""

from __future__ import annotations

import sys

import pytest

from tests.faults.catalogue import catalogue
from tests.faults.harness import Fault, provoke, violations

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(sys.platform != "linux", reason="signals of other systems differ"),
]


@pytest.mark.parametrize(
    "case", [case for case in catalogue() if case.in_ci], ids=lambda case: case.name
)
def test_what_is_promised_is_kept(case: Fault) -> None:
    seen = provoke(case)
    assert violations(case, seen) == [], f"{seen.err}\n{seen.out}"


def test_every_fault_has_a_name_of_its_own() -> None:
    names = [case.name for case in catalogue()]
    assert len(names) == len(set(names))
