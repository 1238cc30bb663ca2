"""`mnist-bench verify`: may these records stand beside the others? Do pages follow from records?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.output import notify
from bench.records import store
from bench.records.folders import RESULTS_DIR
from mnist_cnn.console import EXIT_FAILED, parse_path
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.report.contribution import CheckedFolder
    from bench.verify.checks import CheckOutcome, ResultsFolder

EXIT_UNKNOWN = 2
"""Exit status if no check failed, but some could not be made here."""
EXAMPLES = (
    ("Your own records, before you contribute them.", "mnist-bench verify results/local/*"),
    ("Make two of the published runs again, here.", "mnist-bench verify results/ --rerun 2"),
)


def verify(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[PATH]...",
            help="Folders of records, such as results/local/<machine> (default: results/, all that "
            "are published); or Markdown pages and folders of them, such as README.md docs.",
            show_default=False,
            parser=parse_path,
        ),
    ] = None,
    rerun: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of runs of one folder, picked by chance, to make again here and to "
            "compare.",
        ),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the checks and their findings as JSON.")
    ] = False,
) -> int:
    """Check records, your own or contributed ones, or numbers in pages.

    Exit with 0 if all checks pass, 1 if one fails, 2 if none fails but one could not be made here
    (commits, for example, need a git checkout; a tag of a page must be readable).
    """
    from bench.verify.checks import CheckOutcome
    from bench.verify.pages import are_pages

    chosen = store.without_sweep_plans(paths or [RESULTS_DIR])
    if are_pages(chosen):
        if rerun:
            raise UsageError("--rerun makes runs of records again: name a folder of records")
        outcome = _verify_pages(chosen, as_json)
    elif any(are_pages([path]) for path in chosen):
        raise UsageError("name folders of records or Markdown pages, not both")
    elif rerun and len(chosen) > 1:
        raise UsageError("--rerun makes runs of one machine again: name one folder of records")
    else:
        outcome = _verify_records(chosen, rerun, as_json)
    statuses = {
        CheckOutcome.PASS: 0,
        CheckOutcome.FAIL: EXIT_FAILED,
        CheckOutcome.UNKNOWN: EXIT_UNKNOWN,
    }
    return statuses[outcome]


def _verify_records(paths: list[Path], rerun: int, as_json: bool) -> CheckOutcome:
    from bench.machine.repository import read_history
    from bench.verify import checks, privacy

    history, private_words = read_history(), privacy.own_names()
    # All are read first: what is no folder of records is refused before the checks take time.
    folders = [checks.read_folder(path, history, private_words) for path in paths]
    checked = [_check(folder, rerun) for folder in folders]
    if as_json:
        from bench.report.formats.checks import to_json

        sys.stdout.write(to_json(checked))
    else:
        from bench.report import terminal

        terminal.show(terminal.checks(checked))
    return checks.overall_outcome([result for each in checked for result in each.results])


def _check(folder: ResultsFolder, rerun: int) -> CheckedFolder:
    from bench.report.contribution import PUBLISHED, CheckedFolder, pull_request
    from bench.verify.check_list import CHECKS
    from bench.verify.checks import run_checks

    results = run_checks(folder, [*CHECKS, PUBLISHED])
    if rerun:
        from bench.launch.rerun import rerun as run_again

        results.append(run_again(folder, rerun, notify))
    steps = pull_request(folder, results)
    return CheckedFolder(folder=folder, results=tuple(results), steps=tuple(steps))


def _verify_pages(paths: list[Path], as_json: bool) -> CheckOutcome:
    from bench.report.formats import checks
    from bench.verify.pages import check_pages, find_pages, overall_outcome

    pages = check_pages(find_pages(paths))
    sys.stdout.write(checks.pages_to_json(pages) if as_json else checks.pages_to_lines(pages))
    return overall_outcome(pages)
