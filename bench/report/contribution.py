"""What a contributed folder of records still lacks: rows of the published page, a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.analysis.result_tables import find_entries
from bench.records import store
from bench.report.markdown_text import code
from bench.report.results_page import MARK, disagreements, published_ids
from bench.text import count_of, printable
from bench.verify.checks import Check, CheckFinding, CheckOutcome, CheckResult, ResultsFolder


def published_page(path: Path) -> Path | None:
    """The page that has, or will have, the rows of these records."""
    absolute = path.resolve()
    for folder in (absolute, *absolute.parents):
        page = folder / store.PAGE_NAME
        try:
            with page.open(encoding="utf-8", errors="replace") as file:
                if file.readline().strip() == MARK:
                    return page
        except OSError:
            continue
    return None


def _published(folder: ResultsFolder) -> Iterator[CheckFinding]:
    page = published_page(folder.path)
    if page is None:
        return
    try:
        text = page.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        yield CheckFinding(
            f"{printable(page.name)}: cannot be read: {error.strerror}", unknown=True
        )
        return
    runs = [(path.resolve(), record) for path, record in folder.found.records]
    entries = find_entries(runs, page.parent)
    for entry in entries:
        for difference in disagreements(text, entry):
            yield CheckFinding(f"{printable(entry.id)}: {printable(difference)}")
    known = {(entry.folder, code(entry.id)) for entry in entries}
    for name in {entry.folder for entry in entries}:
        for one in published_ids(text, name):
            if (name, one) not in known:
                yield CheckFinding(f"{printable(one)}: published, but its records are not here")


def unpublished(folder: ResultsFolder) -> int:
    """Rows that the page does not have yet."""
    page = published_page(folder.path)
    text = "" if page is None else page.read_text(encoding="utf-8", errors="replace")
    runs = [(path.resolve(), record) for path, record in folder.found.records]
    parent = folder.path.resolve() if page is None else page.parent
    entries = find_entries(runs, parent)
    return sum(code(entry.id) not in published_ids(text, entry.folder) for entry in entries)


def pull_request(folder: ResultsFolder, results: Sequence[CheckResult]) -> list[str]:
    """What is left to be done before, and what a pull request consists of."""
    left = [
        f"{result.check.name}: {result.check.advice}"
        for result in results
        if result.outcome is not CheckOutcome.PASS
    ]
    if rows := unpublished(folder):
        left.append(
            f"{count_of(rows, 'row')} of results/{store.PAGE_NAME} to be made: mnist-bench publish"
        )
    return [
        *left,
        f"the folder of records below results/, and results/{store.PAGE_NAME} and "
        f"results/{store.CHART_NAME} as publish makes them: no other change",
        "in its text: what the machine is, that nothing else ran on it, and what records do not "
        "say (power limit, cooling, a laptop's charger)",
    ]


PUBLISHED = Check(
    "published",
    "what is published of these records is what their raw laps give",
    "Make the page again: mnist-bench publish.",
    _published,
)
