"""Of which runs equal seeds must give equal losses."""

from __future__ import annotations

import pytest

from bench.verify.fingerprint_checks import same_code
from tests.factories import make_record

HERE, OTHER = "a" * 64, "b" * 64


@pytest.mark.parametrize("name", ["source_sha256", "library_sha256"])
@pytest.mark.parametrize(
    ("one", "two", "same"),
    [(HERE, HERE, True), (HERE, None, True), (None, None, True), (HERE, OTHER, False)],
)
def test_code_is_the_same_unless_it_is_known_to_differ(
    name: str, one: str | None, two: str | None, same: bool
) -> None:
    runs = [make_record(environment={name: digest}) for digest in (one, two)]
    assert same_code(*runs) is same
    assert same_code(*reversed(runs)) is same


def test_on_another_machine_losses_may_differ() -> None:
    assert not same_code(make_record(), make_record(environment={"cpu": "Another"}))
