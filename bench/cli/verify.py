"""`mnist-bench verify`: may these records stand beside the others?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from bench.cli.output import notify
from bench.records.folders import RESULTS_DIR
from mnist_cnn.console import EXIT_FAILED

EXIT_UNKNOWN = 2
"""Exit status if no check failed, but some could not be made here."""


def verify(
    path: Annotated[
        Path,
        typer.Argument(
            help="Folder of records, such as results/local/<machine> (default: results/, all that "
            "are published).",
            show_default=False,
        ),
    ] = RESULTS_DIR,
    rerun: Annotated[
        int,
        typer.Option(
            min=0, help="Number of runs, picked by chance, to make again here and to compare."
        ),
    ] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the checks and their findings as JSON.")
    ] = False,
) -> int:
    """Check a folder of records, your own or a contributed one.

    Exit with 0 if all checks pass, 1 if one fails, 2 if none fails but one could not be made here
    (commits, for example, need a git checkout).
    """
    from bench.machine.repository import read_history
    from bench.report.contribution import PUBLISHED, pull_request
    from bench.verify import checks, privacy
    from bench.verify.check_list import CHECKS
    from bench.verify.checks import CheckOutcome

    folder = checks.read_folder(path, read_history(), privacy.own_names())
    results = checks.run_checks(folder, [*CHECKS, PUBLISHED])
    if rerun:
        from bench.launch.rerun import rerun as run_again

        results.append(run_again(folder, rerun, notify))
    steps = pull_request(folder, results)
    if as_json:
        from bench.report.formats.checks import to_json

        sys.stdout.write(to_json(folder, results, steps))
    else:
        from bench.report import terminal

        terminal.show(terminal.checks(folder, results, steps))
    statuses = {
        CheckOutcome.PASS: 0,
        CheckOutcome.FAIL: EXIT_FAILED,
        CheckOutcome.UNKNOWN: EXIT_UNKNOWN,
    }
    return statuses[checks.overall_outcome(results)]
