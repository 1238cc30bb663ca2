"""results/times.svg: a row a machine, by division, with names that can be told apart."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from bench.analysis.result_tables import find_entries
from bench.records.schema import RunRecord
from bench.report.results_chart import draw_chart
from tests.factories import make_benchmark


def texts(*benchmarks: list[RunRecord]) -> list[str]:
    """The words of a chart, from top to bottom."""
    runs = [(Path("results") / f"{run.run_id}.json", run) for runs in benchmarks for run in runs]
    drawn = ElementTree.fromstring(draw_chart(find_entries(runs, Path("results"))))
    places = [
        (float(element.get("y", 0)), float(element.get("x", 0)), element.text or "")
        for element in drawn.iter("{http://www.w3.org/2000/svg}text")
    ]
    return [words for _, _, words in sorted(places)]


def named(name: str, seconds: tuple[float, ...]) -> list[RunRecord]:
    return make_benchmark(seconds, setup={"device_name": name})


def test_names_that_differ_at_their_ends_still_differ() -> None:
    name = "A processor with a name that is far longer than any picture is wide, of model "
    shown = texts(named(f"{name}1", (6.0, 6.1, 6.2)), named(f"{name}2", (5.0, 5.1, 5.2)))
    rows = [words for words in shown if words.startswith("A processor")]
    assert len(set(rows)) == 2
    assert all("…" in row for row in rows)
    assert "2" in rows[0].partition("…")[2]


def test_every_row_says_its_time_and_the_fastest_is_first() -> None:
    shown = texts(named("slow", (60.0, 61.0, 62.0)), named("fast", (5.0, 5.1, 5.2)))
    assert shown[0].startswith("Time to target")
    fast, slow = (
        next(i for i, words in enumerate(shown) if name in words) for name in ("fast", "slow")
    )
    assert fast < slow
    assert shown[fast + 1].endswith(" s")


def test_what_is_not_official_says_so_and_is_below_the_others() -> None:
    whole = make_benchmark((9.0, 9.1, 9.2, 9.3, 9.4), setup={"device_name": "whole"})
    short = make_benchmark((5.0,), setup={"device_name": "short"})
    shown = texts(short, whole)
    (low,) = (i for i, words in enumerate(shown) if words.startswith("short"))
    (high,) = (i for i, words in enumerate(shown) if words.startswith("whole"))
    assert "(not official)" in shown[low]
    assert high < low
