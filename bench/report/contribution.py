"""What a contributed folder of records still lacks: rows of the published page, a pull request."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from bench.analysis.benchmarks import group_runs, pool_single_runs
from bench.analysis.result_tables import ResultEntry, find_entries
from bench.analysis.standings import standings
from bench.records import store
from bench.report.markdown_text import code
from bench.report.results_page import MARK, disagreements, published_ids
from bench.text import count_of, printable
from bench.verify.checks import Check, CheckFinding, CheckOutcome, CheckResult, ResultsFolder
from mnist_cnn.disk import open_regular_file, read_file
from mnist_cnn.errors import reason_of


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedFolder:
    """A folder of records and what its checks say."""

    folder: ResultsFolder
    """The folder that was checked."""
    results: tuple[CheckResult, ...]
    """The result of each check."""
    steps: tuple[str, ...]
    """What is left to do before a pull request, as `pull_request` lists it."""


def published_page(folder: Path) -> Path | None:
    """The results page in this folder or the nearest one above; None when there is none."""
    absolute = folder.resolve()
    for parent in (absolute, *absolute.parents):
        page = parent / store.PAGE_NAME
        try:
            with open_regular_file(page) as file:
                if file.readline(len(MARK) + 2).strip() == MARK.encode():
                    return page
        except OSError:
            continue
    return None


def _published(folder: ResultsFolder) -> Iterator[CheckFinding]:
    page = published_page(folder.path)
    if page is None:
        return
    try:
        text = _read(page)
    except OSError as error:
        yield CheckFinding(
            f"{printable(page.name)}: cannot be read: {reason_of(error)}", unknown=True
        )
        return
    entries = _entries(folder, page.parent)
    for entry in entries:
        for difference in disagreements(text, entry):
            yield CheckFinding(f"{printable(entry.id)}: {printable(difference)}")
    known = {(entry.folder, code(entry.id)) for entry in entries}
    for folder_name in {entry.folder for entry in entries}:
        for published_id in published_ids(text, folder_name):
            if (folder_name, published_id) not in known:
                yield CheckFinding(
                    f"{printable(published_id)}: published, but its records are not here"
                )


def _read(page: Path) -> str:
    return read_file(page, store.LARGEST_PAGE_BYTES).decode(errors="replace")


def _entries(folder: ResultsFolder, results_dir: Path) -> list[ResultEntry]:
    """The rows that a page in `results_dir` has, or will have, of these records."""
    runs = [(path.resolve(), record) for path, record in folder.contents.records]
    return find_entries(runs, results_dir)


def unpublished(folder: ResultsFolder) -> int:
    """Number of rows that the page does not have yet, or not as these records give them."""
    page = published_page(folder.path)
    text = "" if page is None else _read(page)
    entries = _entries(folder, folder.path.resolve() if page is None else page.parent)
    return sum(not _is_published(text, entry) for entry in entries)


def _is_published(text: str, entry: ResultEntry) -> bool:
    """Whether the page has a row, of its folder or of the folder's copy."""
    if code(entry.id) in published_ids(text, entry.folder):
        return True
    # `publish` copies results/local/<machine> to results/<machine>. The row of the copy differs
    # where runs were added since: then it is to be published again.
    copy = replace(entry, folder=PurePosixPath(entry.folder).name)
    has_row = code(entry.id) in published_ids(text, copy.folder)
    return has_row and not any(disagreements(text, copy))


def _unofficial_rows(folder: ResultsFolder) -> Iterator[str]:
    """A line for each machine and division whose row would not be official, with the reasons."""
    benchmarks = pool_single_runs(group_runs(folder.contents.records))
    for division, rows in standings(("", benchmark) for benchmark in benchmarks).items():
        for row in rows:
            if not row.is_official:
                of_machine = f" of {printable(row.machine)}" if len(rows) > 1 else ""
                yield (
                    f"the {division} division's row{of_machine} would not be official: "
                    f"{'; '.join(row.reasons)}"
                )


def pull_request(folder: ResultsFolder, results: Sequence[CheckResult]) -> list[str]:
    """What remains to be done before a pull request, and what it must contain."""
    steps = [
        *_unofficial_rows(folder),
        *(
            f"{result.check.name}: {result.check.advice}"
            for result in results
            if result.outcome is not CheckOutcome.PASS
        ),
    ]
    if rows := unpublished(folder):
        steps.append(
            f"{count_of(rows, 'row')} of results/{store.PAGE_NAME} to be added: "
            f"mnist-bench publish {printable(str(folder.path))}"
        )
    return [
        *steps,
        "the folder of records below results/, and what publish writes: "
        f"results/{store.PAGE_NAME}, {store.CHART_NAME} and {store.REPORT_NAME} there, and the "
        f"table in {store.PAGE_NAME}",
        "where a new machine changes a number of a page (mnist-bench verify README.md docs names "
        "it), that page; no other change",
        "in its description: what the machine is, that nothing else ran on it, and what records do "
        "not say (power limit, cooling, a laptop's charger)",
    ]


PUBLISHED = Check(
    "published",
    "the published rows agree with the raw laps of these records",
    "Regenerate the page: mnist-bench publish.",
    _published,
)
