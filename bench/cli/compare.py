"""`mnist-bench compare`: compare records with records, with intervals; also as a gate."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import parse_points, parse_share
from bench.cli.output import notify, show_problems, write_file
from bench.records.folders import DEFAULT_DIRS
from bench.text import printable
from mnist_cnn.console import parse_path
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.analysis.gate import GateFinding, Limits
    from bench.analysis.run_sets import RunSet
    from bench.analysis.set_comparison import SetComparison

LEAST_DIFFERENCE = 0.001
"""Smallest difference for which a number of runs is advised; below, it would be absurd."""

_OUTCOME_WIDTH = 11
"""Width of a finding's outcome before its text, in characters: the longest and a space."""

EXAMPLES = (
    ("Did the upgrade make training slower?", "mnist-bench compare before after"),
    (
        "A gate for CI: exit with 1 if it is more than 5 % slower.",
        "mnist-bench compare before after --fail-if-slower 5%",
    ),
)


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="BASE NEW...",
            help="Files or folders of records; or labels, commits or benchmark ids of records in "
            "the results folder; or NAME@COMMIT, of a name's runs those of a commit.",
            show_default=False,
        ),
    ],
    results_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder to search for labels and commits (default: results/local and results/).",
            show_default=False,
            parser=parse_path,
        ),
    ] = None,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 if NEW is shown to be slower by more than this, such as 5%."
        ),
    ] = None,
    fail_if_less_accurate: Annotated[
        str | None,
        typer.Option(
            help="Exit with 1 if NEW is shown to be less accurate by more than these percentage "
            "points, such as 0.05."
        ),
    ] = None,
    summary: Annotated[
        Path | None,
        typer.Option(
            help="Also write what the --fail-if options find to this Markdown file.",
            parser=parse_path,
        ),
    ] = None,
    allow_no_baseline: Annotated[
        bool,
        typer.Option(
            help="Pass, and say so, if BASE names no runs yet: for the first run of a gate."
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON instead of a table.")
    ] = False,
) -> int:
    """Compare NEW with BASE: time, accuracy and learning curve.

    Each difference has an interval.

    With a --fail-if option, exit with 0 if a larger difference is ruled out, 1 if one is shown, 2
    if the runs cannot tell.
    """
    from bench.analysis.gate import Limits

    limits = Limits(_parse_slower(fail_if_slower), _parse_less_accurate(fail_if_less_accurate))
    if limits == Limits():
        for is_given, option in (
            (summary is not None, "--summary"),
            (allow_no_baseline, "--allow-no-baseline"),
        ):
            if is_given:
                raise UsageError(f"{option} needs --fail-if-slower or --fail-if-less-accurate")
    if len(names) < 2:
        raise UsageError("name at least two things to compare: BASE NEW")
    request = _Request(
        names, [results_dir] if results_dir else DEFAULT_DIRS, limits, allow_no_baseline, as_json
    )
    if request.is_gate:
        return _gate(request, summary)
    _compare(request)
    return 0


@dataclass(frozen=True, slots=True)
class _Request:
    """What is asked for."""

    names: Sequence[str]
    """The base's name, then those of the new sides."""
    folders: Sequence[Path]
    """Folders of the records that labels, commits and ids name; they may be absent."""
    limits: Limits
    """What the gate allows; without a limit there is no gate."""
    allow_no_baseline: bool
    """Whether a base without runs passes."""
    as_json: bool
    """Whether to print JSON instead of tables."""

    @property
    def is_gate(self) -> bool:
        """Whether there is a limit to judge by."""
        return self.limits.slower is not None or self.limits.less_accurate is not None


def _gate(request: _Request, summary: Path | None) -> int:
    """Judge, print and write the summary, also of what could not be judged; the exit status."""
    from bench.analysis.gate import GateFinding, GateOutcome, overall_outcome
    from bench.report.formats.gate import to_markdown

    if summary is not None:  # before a verdict is printed, which its refusal would contradict
        write_file(b"", summary, "--summary")
    try:
        compared, findings = _compare(request)
    except UsageError as error:
        unclear = [GateFinding(GateOutcome.UNCLEAR, f"nothing was judged: {error}")]
        if summary is not None:
            write_file(to_markdown(request.names, unclear).encode(), summary, "--summary")
        if request.as_json:
            _show_findings(request.names[0], [], unclear, as_json=True)
        raise
    if summary is not None:
        remarks = dict.fromkeys(
            (each.case.name, remark)
            for set_comparison in compared
            for each in set_comparison.comparisons
            for remark in each.case.remarks
        )
        write_file(to_markdown(request.names, findings, remarks).encode(), summary, "--summary")
    return int(overall_outcome(findings))


def _compare(request: _Request) -> tuple[list[SetComparison], list[GateFinding]]:
    """Compare, and print the tables and, with limits, the findings; return both.

    Raises:
        UsageError: a name names no runs, or runs cannot be compared.
    """
    from bench.analysis.run_sets import known_floors, known_runs
    from bench.analysis.set_comparison import (
        DEFAULT_DIFFERENCE,
        compare_sets,
        judge_first_runs,
        judge_sets,
    )

    base, *others = _find_sides(request)
    if base is None:
        findings = judge_first_runs(request.names[0], others, request.limits)
        _show_findings(request.names[0], [], findings, request.as_json)
        return [], findings
    difference = max(request.limits.slower or DEFAULT_DIFFERENCE, LEAST_DIFFERENCE)
    # A gate must not go on without a noise floor that it cannot read.
    floors = known_floors(base, request.folders, skip_broken=not request.is_gate)
    compared = compare_sets(
        base,
        others,
        difference,
        floors,
        lambda: known_runs([base, *others], request.folders),
        is_gate=request.is_gate,
    )
    if not request.as_json:
        _show_tables(base, compared, is_gate=request.is_gate)
    findings = judge_sets(compared, request.limits, floors) if request.is_gate else []
    _show_findings(base.name, compared, findings if request.is_gate else None, request.as_json)
    return compared, findings


def _find_sides(request: _Request) -> tuple[RunSet | None, *tuple[RunSet, ...]]:
    """The run sets of the names; None for a base that there is not yet, where that is allowed."""
    from bench.analysis.run_sets import NoRuns, find_runs

    base: RunSet | None = None
    try:
        base = find_runs(request.names[0], request.folders)
    except NoRuns as error:
        if not request.names[0].strip():
            raise
        if not request.allow_no_baseline:
            if not request.is_gate:
                raise
            remedy = "if there is no baseline yet, add --allow-no-baseline"
            raise NoRuns(f"{error}; {remedy}") from error
        notify(f"mnist-bench: warning: {error}")  # a misspelled name passes too
    others = [find_runs(name, request.folders) for name in request.names[1:]]
    run_sets = [*([base] if base else []), *others]
    show_problems(dict.fromkeys(problem for runs in run_sets for problem in runs.problems))
    return base, *others


def _parse_slower(text: str | None) -> float | None:
    if text is None:
        return None
    share = parse_share(text, "--fail-if-slower")
    if not 0 <= share < 1:
        meant = f"; did you mean {printable(text)}%?" if 1 <= share < 100 else ""
        raise UsageError(
            f"--fail-if-slower takes 0 to 100 %, such as 5%, not {printable(text)!r}{meant}"
        )
    return share


def _parse_less_accurate(text: str | None) -> float | None:
    return None if text is None else parse_points(text, "--fail-if-less-accurate")


def _show_tables(base: RunSet, compared: Sequence[SetComparison], *, is_gate: bool) -> None:
    from bench.report import terminal

    for each in compared:
        names = base.name, each.new.name
        terminal.show(
            terminal.comparison(*names, each.match, each.comparisons, each.devices, is_gate=is_gate)
        )


def _show_findings(
    base: str,
    compared: Sequence[SetComparison],
    findings: Sequence[GateFinding] | None,
    as_json: bool,
) -> None:
    """Print the findings, or with --json everything."""
    if as_json:
        from bench.report.formats.comparisons import to_json

        sides = [(each.new.name, each.match, each.comparisons, each.devices) for each in compared]
        sys.stdout.write(to_json(base, sides, findings))
        return
    # A line stays whole where another program may read it.
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for finding in findings or ():
        line = f"{finding.outcome.name.lower():<{_OUTCOME_WIDTH}}{finding.text}"
        print(line if width is None else _wrapped(line, width))


def _wrapped(line: str, width: int) -> str:
    """The line of a finding, over several lines where it is too long, between words."""
    indent = " " * _OUTCOME_WIDTH
    return textwrap.fill(
        line, width, subsequent_indent=indent, break_on_hyphens=False, break_long_words=False
    )
