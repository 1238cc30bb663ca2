"""The checks of a folder as JSON: what `verify` prints, for another program."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.columns import shown_path
from bench.verify.checks import CheckResult, ResultsFolder, overall_outcome


def to_json(folder: ResultsFolder, results: Sequence[CheckResult], steps: Sequence[str]) -> str:
    """One object: the folder, the checks with their findings, and the steps to a pull request.

    Args:
        folder: the folder that was checked.
        results: the result of each check.
        steps: what is left to do before a pull request.
    """
    checks = [
        {
            "name": result.check.name,
            "outcome": result.outcome.value,
            "claim": result.check.claim,
            "findings": [finding.text for finding in result.findings],
            "notes": list(result.notes),
            "advice": result.check.advice,
        }
        for result in results
    ]
    document = {
        "path": shown_path(folder.path),
        "records": len(folder.contents.records),
        "outcome": overall_outcome(results).value,
        "checks": checks,
        "pull_request": list(steps),
    }
    return json.dumps(document, indent=2) + "\n"
