"""The checks of a folder or of pages as JSON, and those of pages as lines: what `verify` prints."""

from __future__ import annotations

import json
from collections.abc import Sequence

from bench.analysis.columns import shown_path
from bench.report.contribution import CheckedFolder
from bench.text import count_of, printable
from bench.verify.checks import CheckOutcome, overall_outcome
from bench.verify.pages import CheckedPage


def to_json(folders: Sequence[CheckedFolder]) -> str:
    """An object for one folder; for several, a list of one object each."""
    documents = [_document(checked) for checked in folders]
    return json.dumps(documents[0] if len(documents) == 1 else documents, indent=2) + "\n"


def _document(checked: CheckedFolder) -> dict[str, object]:
    """The folder, the checks with their findings, and the steps to a pull request."""
    checks = [
        {
            "name": result.check.name,
            "outcome": result.outcome.value,
            "claim": result.check.claim,
            "findings": [finding.text for finding in result.findings],
            "notes": list(result.notes),
            "advice": result.check.advice,
        }
        for result in checked.results
    ]
    return {
        "path": shown_path(checked.folder.path),
        "records": len(checked.folder.contents.records),
        "outcome": overall_outcome(checked.results).value,
        "checks": checks,
        "pull_request": list(checked.steps),
    }


def pages_to_json(pages: Sequence[CheckedPage]) -> str:
    """A list of one object a page: its outcome, how many numbers were compared, the findings."""
    documents = [
        {
            "path": shown_path(page.path),
            "outcome": page.outcome.value,
            "numbers": page.numbers,
            "findings": [
                {"line": finding.line, "text": finding.text, "unreadable": finding.unreadable}
                for finding in page.findings
            ],
        }
        for page in pages
    ]
    return json.dumps(documents, indent=2) + "\n"


def pages_to_lines(pages: Sequence[CheckedPage]) -> str:
    """A line a finding, as ``README.md:12: ...``, and one a page whose numbers all agree."""
    lines = []
    for page in pages:
        name = printable(str(page.path))
        lines += [f"{name}:{finding.line}: {finding.text}" for finding in page.findings]
        if page.numbers and page.outcome is CheckOutcome.PASS:
            lines.append(f"{name}: {count_of(page.numbers, 'number')} as the records give")
    if not lines:
        lines.append(f"no tagged number in {count_of(len(pages), 'page')}")
    return "".join(f"{line}\n" for line in lines)
