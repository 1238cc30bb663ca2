"""`mnist-bench compare`: records against records, with intervals; or as a gate."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bench.cli.options import parse_share
from bench.records import store
from bench.records.store import RESULTS_DIR
from bench.text import printable
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.analysis.cases import CaseMatch
    from bench.analysis.comparison import Comparison
    from bench.analysis.gate import GateFinding, Limits
    from bench.analysis.run_sets import RunSet

DEFAULT_DIFFERENCE = 0.05
LEAST_DIFFERENCE = 0.001
"""Below it nobody is told how many runs would see it."""


def compare(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="BASE NEW...",
            help="Files or folders; or labels, commits or benchmark ids in the results folder.",
            show_default=False,
        ),
    ],
    results_dir: Annotated[
        Path, typer.Option(help="Where labels, commits and ids are looked up.")
    ] = RESULTS_DIR,
    fail_if_slower: Annotated[
        str | None,
        typer.Option(help="Be a gate: exit 1 where more than so much slower is shown, as 5%."),
    ] = None,
    fail_if_less_accurate: Annotated[
        str | None,
        typer.Option(help="Be a gate: exit 1 where so many points less accurate is shown: 0.05."),
    ] = None,
    summary: Annotated[
        Path | None, typer.Option(help="Write the gate's lines there too, in Markdown.")
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print all of it as JSON, the gate's lines included.")
    ] = False,
) -> int:
    """Compare runs with runs: faster, as accurate, learning alike? Intervals with everything."""
    from bench.analysis.gate import Limits, verdict

    limits = Limits(
        slower=None if fail_if_slower is None else _share(fail_if_slower),
        less_accurate=None if fail_if_less_accurate is None else _points(fail_if_less_accurate),
    )
    gated = limits != Limits()
    if summary is not None and not gated:
        raise UsageError(
            "--summary is the gate's: name --fail-if-slower or --fail-if-less-accurate"
        )
    if len(names) < 2:
        raise UsageError("name two things to compare at least: BASE NEW")
    base, *others = _sides(names, results_dir)
    wanted = max(limits.slower or DEFAULT_DIFFERENCE, LEAST_DIFFERENCE)
    compared = _compared(base, others, wanted)
    if not as_json:
        from bench.report import terminal

        for new, matched, contrasts in compared:
            terminal.show(terminal.comparison(base.name, new.name, matched, contrasts))
    findings = _judged(base, compared, limits, results_dir) if gated else None
    if as_json:
        from bench.report.formats.comparisons import to_json

        named = [(new.name, matched, contrasts) for new, matched, contrasts in compared]
        sys.stdout.write(to_json(base.name, named, findings))
    if findings is None:
        return 0
    if not as_json:
        for finding in findings:
            print(f"{finding.outcome.name.lower():<10} {finding.text}")
    if summary is not None:
        _write(summary, findings)
    return int(verdict(findings))


def _judged(
    base: RunSet,
    compared: list[tuple[RunSet, CaseMatch, list[Comparison]]],
    limits: Limits,
    results_dir: Path,
) -> list[GateFinding]:
    """What the gate says of every case."""
    from bench.analysis.gate import judge
    from bench.records import sidecars

    floors = sidecars.read_noise_floors([results_dir, *([Path(base.name)] if base.is_path else [])])
    return [
        finding
        for _, matched, contrasts in compared
        for finding in judge(matched, contrasts, limits, floors)
    ]


def _sides(names: list[str], results_dir: Path) -> list[RunSet]:
    from bench.analysis.run_sets import find_runs

    sides = [find_runs(name, results_dir) for name in names]
    problems: dict[store.UnreadableFile, None] = {
        problem: None for one in sides for problem in one.problems
    }
    for problem in problems:
        print(f"{printable(str(problem.path))}: {problem.reason}", file=sys.stderr)
    return sides


def _compared(
    base: RunSet, others: list[RunSet], wanted: float
) -> list[tuple[RunSet, CaseMatch, list[Comparison]]]:
    from bench.analysis.case_comparison import compare_case
    from bench.analysis.cases import match_cases

    matches = [(new, match_cases(base, new)) for new in others]
    comparisons = sum(len(matched.cases) for _, matched in matches)
    for _, matched in matches:
        for case in matched.cases:
            for name, runs in (("base", case.base), ("new", case.new)):
                if not runs:
                    raise UsageError(f"{case.name}: no completed run among the {name}'s")
    return [
        (new, matched, [compare_case(case, comparisons, wanted) for case in matched.cases])
        for new, matched in matches
    ]


def _share(text: str) -> float:
    value = parse_share(text, "--fail-if-slower")
    if not 0 <= value < 1:
        raise UsageError(
            f"--fail-if-slower takes 0 to 100 per cent, as 5%, not {printable(text)!r}"
        )
    return value


def _points(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 <= value < 100:
        raise UsageError(
            f"--fail-if-less-accurate takes percentage points, as 0.05, not {printable(text)!r}"
        )
    return value


def _write(path: Path, findings: list[GateFinding]) -> None:
    rows = [
        f"| {f.outcome.name.lower()} | {f.text.replace('|', chr(92) + '|')} |" for f in findings
    ]
    text = "\n".join(["| outcome | what |", "| --- | --- |", *rows]) + "\n"
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise UsageError(f"cannot write {printable(str(path))}: {error.strerror}") from error
