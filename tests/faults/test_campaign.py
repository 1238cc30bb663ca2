"""Random faults that once broke a promise, one of each cause: they keep it now."""

from __future__ import annotations

import sys

import pytest

from tests.faults.campaign import campaign_violations, random_fault
from tests.faults.harness import provoke

SEEDS = {
    224: "the guardian is killed while a file is renamed",
    458: "a run fails under --quiet",
}
FURTHER_SEEDS = {
    236: "a rank dies where the ranks meet for the last time",
    355: "a signal comes inside a destructor",
    372: "the results folder does not take the second record",
    2006: "a rank leaves before the first run",
    2056: "a rank is asked to end between two runs",
    3127: "the first rank leaves with success before the first run",
    3150: "a rank leaves, and the first one is asked to end before the first run",
}


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="signals of other systems differ")
@pytest.mark.parametrize(
    "seed",
    [
        *(pytest.param(seed, id=name) for seed, name in SEEDS.items()),
        *(
            pytest.param(seed, id=name, marks=pytest.mark.thorough)
            for seed, name in FURTHER_SEEDS.items()
        ),
    ],
)
def test_what_was_promised_is_kept(seed: int) -> None:
    seen = provoke(random_fault(seed))
    assert seen.has_happened
    assert campaign_violations(seed, seen) == [], f"{seen.err}\n{seen.out}"
