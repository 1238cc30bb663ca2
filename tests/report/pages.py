"""What tests of the HTML report share: a reader of pages, and records with known errors."""

from __future__ import annotations

from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from bench.analysis import benchmarks
from bench.records.schema import RunRecord
from bench.records.store import UnreadableFile
from bench.report.html import figures
from bench.report.html.figure_result import FigureResult
from bench.report.html.page import to_html
from bench.report.html.series import SetupSeries, setup_series
from mnist_cnn.data import files
from tests.factories import make_record

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = (
    "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>\n\x1b[31m$x^2$ {{ 7 * 7 }} 中 &amp;"
)
MNIST_SUMS = {file.name: file.sha256 for file in files.FILES}


class Page(HTMLParser):
    """What a browser would find: every start tag, and the text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.sources: dict[str, str] = {}
        self._within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = tag

    def handle_data(self, data: str) -> None:
        if self._within in ("style", "script"):
            self.sources[self._within] = self.sources.get(self._within, "") + data
        else:
            self.text += data

    def handle_endtag(self, tag: str) -> None:
        self._within = ""


def series_of(runs: Sequence[RunRecord]) -> list[SetupSeries]:
    return setup_series(benchmarks.group_runs((None, run) for run in runs))


def page_of(runs: Sequence[RunRecord], problems: Sequence[UnreadableFile] = ()) -> str:
    found = series_of(runs)
    return to_html(found, figures.draw_figures(found), problems)


def outcome(runs: Sequence[RunRecord], title: str) -> FigureResult:
    return next(one for one in figures.draw_figures(series_of(runs)) if one.title == title)


def mistaken(images: list[int], predicted: list[int], **overrides: Any) -> RunRecord:
    return make_record(
        accuracies=[1 - len(images) / 10_000],
        mistakes={"images": images, "predicted": predicted},
        dataset=MNIST_SUMS,
        **overrides,
    )
