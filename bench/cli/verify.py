"""`mnist-bench verify`: may these records stand beside the others?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.records.store import RESULTS_DIR
from mnist_cnn.console import EXIT_FAILED

if TYPE_CHECKING:
    from collections.abc import Sequence

    from bench.verify.checks import CheckResult, ResultsFolder

EXIT_UNKNOWN = 2
"""Nothing was found wrong, but not everything could be checked here."""


def verify(
    path: Annotated[
        Path, typer.Argument(help="A folder of records (default: results/).", show_default=False)
    ] = RESULTS_DIR,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print checks and findings as JSON.")
    ] = False,
) -> int:
    """Check a folder of records, ours or a contributed one: exit 0 where all is well, 1 where not.

    Exit 2 where something could not be checked here, as a commit without a git checkout.
    """
    from bench.machine.repository import read_history
    from bench.report.contribution import PUBLISHED, pull_request
    from bench.verify import checks, privacy
    from bench.verify.check_list import CHECKS
    from bench.verify.checks import CheckOutcome

    folder = checks.read_folder(path, read_history(), privacy.own_names())
    results = checks.run_checks(folder, [*CHECKS, PUBLISHED])
    steps = pull_request(folder, results)
    if as_json:
        print(_json(folder, results, steps))
    else:
        from bench.report import terminal

        terminal.show(terminal.checks(folder, results, steps))
    exits = {
        CheckOutcome.PASS: 0,
        CheckOutcome.FAIL: EXIT_FAILED,
        CheckOutcome.UNKNOWN: EXIT_UNKNOWN,
    }
    return exits[checks.overall_outcome(results)]


def _json(folder: ResultsFolder, results: Sequence[CheckResult], steps: Sequence[str]) -> str:
    from bench.analysis.columns import shown_path
    from bench.verify.checks import overall_outcome

    checks = [
        {
            "name": result.check.name,
            "outcome": result.outcome.value,
            "claim": result.check.claim,
            "findings": [finding.text for finding in result.findings],
            "advice": result.check.advice,
        }
        for result in results
    ]
    return json.dumps(
        {
            "path": shown_path(folder.path),
            "records": len(folder.contents.records),
            "outcome": overall_outcome(results).value,
            "checks": checks,
            "pull_request": list(steps),
        },
        indent=2,
    )
