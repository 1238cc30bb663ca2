"""`mnist-bench compare`: compare records with records, with intervals; also as a gate."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import parse_points, parse_share
from bench.cli.output import show_problems, write_file
from bench.records import sidecars
from bench.records.store import RESULTS_DIR
from bench.text import printable
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.analysis.gate import GateFinding
    from bench.analysis.run_sets import RunSet
    from bench.analysis.set_comparison import SetComparison

DEFAULT_DIFFERENCE = 0.05
"""Relative difference for which a number of runs is advised."""
LEAST_DIFFERENCE = 0.001
"""Smallest such difference: the number of runs for a smaller one would be absurd."""


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="BASE NEW...",
            help="Files or folders of records; or labels, commits or benchmark ids of records in "
            "the results folder.",
            show_default=False,
        ),
    ],
    results_dir: Annotated[
        Path, typer.Option(help="Folder for the records that labels, commits and ids name.")
    ] = RESULTS_DIR,
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
        typer.Option(help="Also write what the --fail-if options find to this Markdown file."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON instead of a table.")
    ] = False,
) -> int:
    """Compare NEW with BASE: time, accuracy and learning curve, each with an interval.

    With a --fail-if option, exit with 0 if a larger difference is ruled out, 1 if one is shown, 2
    if there are too few runs to tell.
    """
    from bench.analysis.gate import Limits, overall_outcome
    from bench.analysis.run_sets import find_runs
    from bench.analysis.set_comparison import compare_sets, judge_sets

    limits = Limits(_parse_slower(fail_if_slower), _parse_less_accurate(fail_if_less_accurate))
    is_gate = limits != Limits()
    if summary is not None and not is_gate:
        raise UsageError("--summary needs --fail-if-slower or --fail-if-less-accurate")
    if len(names) < 2:
        raise UsageError("name at least two things to compare: BASE NEW")
    run_sets = [find_runs(name, results_dir) for name in names]
    show_problems(dict.fromkeys(problem for runs in run_sets for problem in runs.problems))
    base, *others = run_sets
    difference = max(limits.slower or DEFAULT_DIFFERENCE, LEAST_DIFFERENCE)
    folders = [results_dir, Path(base.name)] if base.is_path else [results_dir]
    floors = sidecars.read_noise_floors(folders, skip_broken=not is_gate)
    compared = compare_sets(base, others, difference, floors)
    if not as_json:
        _show_tables(base, compared)
    findings = None
    if is_gate:
        findings = judge_sets(compared, limits, floors)
    _show_findings(base, compared, findings, as_json)
    if findings is None:
        return 0
    if summary is not None:
        from bench.report.formats.gate import to_markdown

        write_file(to_markdown(findings).encode(), summary, "--summary")
    return int(overall_outcome(findings))


def _parse_slower(text: str | None) -> float | None:
    if text is None:
        return None
    share = parse_share(text, "--fail-if-slower")
    if not 0 <= share < 1:
        raise UsageError(f"--fail-if-slower takes 0 to 100 %, such as 5%, not {printable(text)!r}")
    return share


def _parse_less_accurate(text: str | None) -> float | None:
    return None if text is None else parse_points(text, "--fail-if-less-accurate")


def _show_tables(base: RunSet, compared: Sequence[SetComparison]) -> None:
    from bench.report import terminal

    for each in compared:
        terminal.show(
            terminal.comparison(base.name, each.new.name, each.match, list(each.comparisons))
        )


def _show_findings(
    base: RunSet,
    compared: Sequence[SetComparison],
    findings: Sequence[GateFinding] | None,
    as_json: bool,
) -> None:
    """Print the findings, or with --json everything."""
    if as_json:
        from bench.report.formats.comparisons import to_json

        sides = [(each.new.name, each.match, each.comparisons) for each in compared]
        sys.stdout.write(to_json(base.name, sides, findings))
        return
    for finding in findings or ():
        print(f"{finding.outcome.name.lower():<10} {finding.text}")
