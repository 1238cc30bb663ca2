"""The machines and software of a page."""

from __future__ import annotations

from hypothesis import given, strategies as st

from bench.report.html.environments import environment_table, ranges
from tests.factories import make_benchmark
from tests.report.pages import (
    Page,
    page_of,
    series_of,
)


def test_what_differs_between_machines_stands_first_and_is_marked() -> None:
    runs = [
        *make_benchmark(label="a"),
        *make_benchmark(label="b"),
        *make_benchmark(label="c", environment={"torch": "2.16.0"}),
    ]
    table = environment_table(series_of(runs))
    assert table.columns == ("1, 2", "3")
    first, second = table.facts[:2]
    assert (first.name, first.values, first.differs) == ("torch", ("2.15.0", "2.16.0"), True)
    assert not second.differs
    page = Page(page_of(runs))
    assert [tag for tag, a in page.tags if a.get("class") == "differs"] == ["td"]


@given(st.sets(st.integers(1, 40), min_size=1))
def test_numbers_are_written_as_ranges(numbers: set[int]) -> None:
    written = ranges(sorted(numbers))
    read: set[int] = set()
    for part in written.split(", "):
        first, _, last = part.partition("–")
        read |= set(range(int(first), int(last or first) + 1))
    assert read == numbers
