"""The checks of folders as tables: one row per check, and what remains to be done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from bench.report.terminal.tables import FittedTable, Section, TableColumn
from bench.text import count_of, printable
from bench.verify.checks import CheckOutcome, CheckResult

if TYPE_CHECKING:
    from bench.report.contribution import CheckedFolder

_STYLES = {CheckOutcome.PASS: "green", CheckOutcome.FAIL: "red", CheckOutcome.UNKNOWN: "yellow"}
_SHOWN = 3
"""Number of findings of a check that the table shows; `--json` has all."""


def checks(folders: Sequence[CheckedFolder]) -> RenderableType:
    """For each folder a table of the checks, and below it the steps to a pull request."""
    first, *others = map(_folder_checks, folders)
    return Group(first, *(part for other in others for part in (Text(), other)))


def _folder_checks(checked: CheckedFolder) -> RenderableType:
    folder, results = checked.folder, checked.results
    title = f"{printable(str(folder.path))}: {count_of(len(folder.contents.records), 'record')}"
    fields = [
        TableColumn("check", [Text(result.check.name) for result in results], justify="left"),
        TableColumn("outcome", [_outcome(result) for result in results], justify="left"),
        TableColumn("", [_findings(result) for result in results], justify="left", narrowest=40),
    ]
    table = FittedTable(fields, [Section(0, len(results), Text(title, style="bold"))])
    needs = [
        Text(f"{number}. {printable(step)}") for number, step in enumerate(checked.steps, start=1)
    ]
    return Group(table, Text(), Text("A pull request needs:", style="bold"), *needs)


def _outcome(result: CheckResult) -> Text:
    return Text(result.outcome.value, style=_STYLES[result.outcome])


def _notes(result: CheckResult) -> list[str]:
    more = len(result.notes) - _SHOWN
    notes = [printable(note) for note in result.notes[:_SHOWN]]
    return [*notes, f"and {more} more: --json lists them"] if more > 0 else notes


def _findings(result: CheckResult) -> Text:
    """The claim of a check that passed, and what it counted; otherwise findings and advice."""
    if not result.findings:
        return Text("\n".join((result.check.claim, *_notes(result))), style="dim")
    lines = [printable(finding.text) for finding in result.findings[:_SHOWN]]
    more = len(result.findings) - _SHOWN
    if more > 0:
        lines.append(f"and {more} more: --json lists them")
    text = Text("\n".join((*lines, *_notes(result))))
    return text.append(f"\n-> {result.check.advice}", style="bold")
