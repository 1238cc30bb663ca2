"""Do the tagged numbers of Markdown pages follow from the records that their tags name?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench.records import store
from bench.records.folders import RESULTS_DIR
from bench.records.record_file import LARGEST_RECORD_BYTES
from bench.stats.intervals import Estimate
from bench.text import printable
from bench.verify.checks import CheckOutcome
from bench.verify.figure_requests import Product, parse_request
from bench.verify.figure_values import (
    Figure,
    RecordReader,
    estimate,
    recompute,
    recompute_product,
)
from bench.verify.page_tags import Tag, read_tags
from bench.verify.shown_numbers import ShownNumber, in_unit
from mnist_cnn.disk import read_text
from mnist_cnn.errors import UsageError, reason_of

SUFFIX = ".md"
_RECORD = "[0-9]*T[0-9]*Z-*.json"
"""How the file of a record is named."""


@dataclass(frozen=True, slots=True)
class PageFinding:
    """One thing that is wrong with a tag or its numbers."""

    line: int
    """The page's line on which the tag begins, from 1."""
    text: str
    """The finding in one line."""
    unreadable: bool = False
    """Whether the tag cannot be followed, so that its numbers are not checked."""


@dataclass(frozen=True, slots=True)
class CheckedPage:
    """A page and what was found."""

    path: Path
    numbers: int
    """Number of numbers that were compared with records."""
    findings: tuple[PageFinding, ...]

    @property
    def outcome(self) -> CheckOutcome:
        """Fail with a wrong number; unknown with a tag that cannot be read."""
        if any(not finding.unreadable for finding in self.findings):
            return CheckOutcome.FAIL
        return CheckOutcome.UNKNOWN if self.findings else CheckOutcome.PASS


def are_pages(paths: Sequence[Path]) -> bool:
    """Whether all are Markdown pages, or folders that hold such pages and no records."""
    return all(_is_folder_of_pages(p) if p.is_dir() else p.suffix == SUFFIX for p in paths)


def _is_folder_of_pages(folder: Path) -> bool:
    if not any(folder.rglob(f"*{SUFFIX}")) or any(folder.rglob(_RECORD)):
        return False
    return not store.read_records([folder]).records


def find_pages(paths: Iterable[Path]) -> list[Path]:
    """The Markdown pages among these files and in these folders, in order.

    Raises:
        UsageError: a path does not exist or is no such page, or a folder has none.
    """
    pages: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UsageError(f"there is no {printable(str(path))}")
        found = sorted(path.rglob(f"*{SUFFIX}")) if path.is_dir() else [path]
        if not found or not all(page.is_file() and page.suffix == SUFFIX for page in found):
            raise UsageError(
                f"{printable(str(path))} is neither a Markdown page nor a folder of records or of "
                "Markdown pages"
            )
        pages += found
    return list(dict.fromkeys(pages))


def check_pages(paths: Iterable[Path]) -> list[CheckedPage]:
    """Check all tags of Markdown pages. Records that several pages name are read once.

    Raises:
        UsageError: a page cannot be read.
    """
    readers: dict[Path, RecordReader] = {}
    checked = []
    for path in paths:
        root = project_of(path)
        checked.append(_check_page(path, readers.setdefault(root, RecordReader(root))))
    return checked


def overall_outcome(pages: Sequence[CheckedPage]) -> CheckOutcome:
    """The worst outcome."""
    outcomes = {page.outcome for page in pages}
    worst_first = (CheckOutcome.FAIL, CheckOutcome.UNKNOWN, CheckOutcome.PASS)
    return next(outcome for outcome in worst_first if outcome in outcomes)


def project_of(page: Path) -> Path:
    """The folder that a page's places are relative to: the nearest above it that has results/."""
    folder = page.absolute().parent
    for parent in (folder, *folder.parents):
        if (parent / RESULTS_DIR).is_dir():
            return parent
    return folder


def _check_page(path: Path, reader: RecordReader) -> CheckedPage:
    try:
        text = read_text(path, LARGEST_RECORD_BYTES)
    except (OSError, ValueError) as error:
        reason = reason_of(error) if isinstance(error, OSError) else error
        raise UsageError(f"{printable(str(path))} cannot be read: {reason}") from error
    named: dict[str, Estimate] = {}
    numbers, findings = 0, []
    for tag in read_tags(text):
        try:
            pairs = _pairs(tag, reader, named)
        except UsageError as error:
            findings.append(PageFinding(tag.line, printable(str(error)), unreadable=True))
            continue
        numbers += len(pairs)
        findings += [PageFinding(tag.line, line) for line in _disagreements(pairs)]
    return CheckedPage(path, numbers, tuple(findings))


def _pairs(
    tag: Tag, reader: RecordReader, named: dict[str, Estimate]
) -> list[tuple[ShownNumber, Figure]]:
    """Each number of a tag beside its recomputed value; `named` gets the tag's own value.

    Raises:
        UsageError: the tag cannot be read, or what it names does not exist.
    """
    if tag.problem is not None:
        raise UsageError(tag.problem)
    request = parse_request(tag.request)
    if len(tag.numbers) < len(request.names):
        raise UsageError(
            f"the tag has {len(request.names)} names, but only {len(tag.numbers)} numbers stand "
            "between it and the tag, or the beginning of the paragraph or row, before it"
        )
    if isinstance(request, Product):
        figures = recompute_product(request, named)
    else:
        figures = recompute(request, reader)
        if tag.name is not None:
            named[tag.name] = estimate(request, reader)
    shown = tag.numbers[len(tag.numbers) - len(figures) :]
    return [(n, figure) for n, figure in zip(shown, figures, strict=True) if figure is not None]


def _disagreements(pairs: Sequence[tuple[ShownNumber, Figure]]) -> Iterator[str]:
    """A line for each number that is not its value, rounded."""
    for position, (number, figure) in enumerate(pairs):
        unit = _unit_at(position, pairs)
        if not number.agrees(figure.value, unit, figure.end):
            after = f" {unit}" if unit else ""
            value = in_unit(figure.value, unit)
            yield f"{number.text}{after} should be {value:.8g}{after}, the {figure.name}"


def _unit_at(position: int, pairs: Sequence[tuple[ShownNumber, Figure]]) -> str | None:
    """The unit of a number: its own, or that of the next one of its group, or of the one before."""
    number, figure = pairs[position]
    if not figure.has_unit:
        return None
    for near in (*pairs[position:], *reversed(pairs[:position])):
        if near[1].group == figure.group and near[1].has_unit and near[0].unit is not None:
            return near[0].unit
    # "99.41 (99.40-99.46)" in a column of accuracies.
    return "%" if figure.is_share and float(number.text.replace(",", "")) > 1 else None
