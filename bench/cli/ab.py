"""`mnist-bench ab`: two ways to run, by turns, until it is clear which is faster."""

from __future__ import annotations

import random
import shlex
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from bench.cli.options import parse_share
from bench.launch import single_run
from bench.launch.checkout import Checkout, find_checkout, prepare_checkout
from bench.machine.repository import PROJECT
from bench.records import store
from bench.records.store import RESULTS_DIR, ReadResult, UnreadableFile
from bench.text import printable
from mnist_cnn.console import EXIT_FAILED, EXIT_USAGE
from mnist_cnn.errors import UsageError

if TYPE_CHECKING:
    from bench.analysis.comparison import Comparison, MetricComparison
    from bench.records.schema import RunRecord

LOOKS = (8, 12, 18)
"""Rounds after which the runs so far are looked at. The chance to err is shared among the looks
(Bonferroni; for looking repeatedly: Armitage, McPherson & Rowe 1969), so that stopping at the first
clear answer is allowed. Seven are the fewest from which signed ranks can tell anything then."""
OURS = ("--runs", "--seed", "--label", "--quiet", "--json", "--no-save", "--profile")
"""Options of `run` that are not the user's here."""


@dataclass(frozen=True, slots=True)
class _Way:
    """One of the two ways to run."""

    words: tuple[str, ...]
    """Options of `run` that are this side's alone."""
    checkout: Checkout | None
    """Another commit's; None for what is checked out here, changes and all."""


def ab(
    context: typer.Context,
    a: Annotated[str, typer.Option("--a", help="Options of `run` for side A, in quotes.")] = "",
    b: Annotated[str, typer.Option("--b", help="Options of `run` for side B, in quotes.")] = "",
    a_commit: Annotated[
        str | None,
        typer.Option(
            metavar="REV",
            help="Run side A from this commit, in a worktree with an environment of its own "
            "(default: what is checked out here).",
            show_default=False,
        ),
    ] = None,
    b_commit: Annotated[
        str | None,
        typer.Option(metavar="REV", help="The same for side B.", show_default=False),
    ] = None,
    rounds: Annotated[
        int | None,
        typer.Option(
            help="Run each side so many times, and look once (default: until it is clear, at most "
            f"{LOOKS[-1]}).",
            show_default=False,
        ),
    ] = None,
    wanted: Annotated[
        str, typer.Option(help="Stop as well when a difference as large as this is ruled out.")
    ] = "5%",
    name: Annotated[str, typer.Option(help="What to call the runs: NAME-a, NAME-b.")] = "ab",
    results_dir: Annotated[Path, typer.Option(help="Where records go.")] = RESULTS_DIR,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the comparison as JSON instead of the table.")
    ] = False,
) -> int:
    """Run A and B in turn, each run in a process of its own, and compare them.

    Every other option goes to both sides, as to `run`. With equal sides, options and commits, the
    machine's noise floor is measured and kept beside the records.
    """
    from bench.analysis.comparison import Metric

    if rounds is not None and rounds < 1:
        raise UsageError(f"--rounds must be at least 1, not {rounds}")
    difference = parse_share(wanted, "--wanted")
    if not 0 < difference < 1:
        raise UsageError(f"--wanted must lie between 0 % and 100 %, not {printable(wanted)!r}")
    sides = {"a": _way(a, "--a", a_commit), "b": _way(b, "--b", b_commit)}
    for word in (*context.args, *sides["a"].words, *sides["b"].words):
        if word.split("=")[0] in OURS:
            raise UsageError(f"ab sets {word.split('=')[0]} itself: leave it out")
    _prepare(sides)
    known = {problem.path for problem in _read(results_dir).problems}
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    looks = LOOKS if rounds is None else (rounds,)
    records: dict[str, list[RunRecord]] = {"a": [], "b": []}
    contrast: Comparison | None = None
    for index in range(looks[-1]):
        # Chance, and so independent of whatever else has a rhythm on this machine.
        for side in random.sample(("a", "b"), 2):
            label = f"{name}-{side} {stamp}"
            way, what = sides[side], f"round {index + 1}, {side}"
            words = [*context.args, *way.words, "--seed", str(index), "--label", label]
            if not _run([*words, "--results-dir", str(results_dir)], what, way.checkout):
                return EXIT_FAILED
            found = _read(results_dir)
            records[side] = _labelled(label, found)
            if len(records[side]) != index + 1:
                new = [problem for problem in found.problems if problem.path not in known]
                raise UsageError(_no_record(side, new))
            if way.checkout is not None:
                _check_commit(records[side][-1], way.checkout)
        if index == 0:
            _check(records)
        if index + 1 in looks:
            contrast = _contrast(records, len(looks), difference)
            if is_clear(contrast.line(Metric.SECONDS_AN_IMAGE)):
                break
    assert contrast is not None
    _show(contrast, name, as_json)
    if sides["a"] == sides["b"]:
        _keep_floor(contrast, results_dir, sys.stderr if as_json else sys.stdout)
    return 0


def _way(options: str, of: str, revision: str | None) -> _Way:
    try:
        words = tuple(shlex.split(options))
    except ValueError as error:
        raise UsageError(f"{of} {printable(options)!r}: {error}") from error
    checkout = None if revision is None else find_checkout(revision, f"{of}-commit", PROJECT)
    return _Way(words, checkout)


def _prepare(sides: dict[str, _Way]) -> None:
    """Have the other commits ready to run, each once, and say where they are."""
    for checkout in dict.fromkeys(way.checkout for way in sides.values()):
        if checkout is not None:
            of = " and ".join(side for side, way in sides.items() if way.checkout == checkout)
            print(
                f"{of}: commit {checkout.short}, kept for the next time in "
                f"{printable(str(checkout.folder))}",
                file=sys.stderr,
                flush=True,
            )
            prepare_checkout(checkout, PROJECT)


def _run(words: list[str], what: str, checkout: Checkout | None) -> bool:
    """One run in a process of its own; whether it completed.

    Raises:
        UsageError: its options are wrong; what it said stands above.
    """
    print(what, file=sys.stderr, flush=True)
    status = single_run.run_once(words, checkout)
    if status == EXIT_USAGE:
        raise UsageError(f"{what} could not be run; see above")
    if status != 0:
        print(f"mnist-bench: {what} failed, and nothing can be compared", file=sys.stderr)
    return status == 0


def _check(records: dict[str, list[RunRecord]]) -> None:
    """After the first round, find out whether there will be anything to compare.

    Raises:
        UsageError: no.
    """
    from bench.analysis.cases import match_cases
    from bench.analysis.run_sets import RunSet

    base, new = (RunSet(side, tuple(runs)) for side, runs in records.items())
    match_cases(base, new)


def _check_commit(record: RunRecord, checkout: Checkout) -> None:
    """Find out whether a run was of the commit it was meant to be of, whatever was imported.

    Raises:
        UsageError: no, or it does not say.
    """
    commit = record.environment.commit
    if commit != checkout.commit:
        raise UsageError(
            f"a run of commit {checkout.short} says that it was of "
            f"{printable(commit) if commit else 'no commit'}: nothing can be compared"
        )


def _no_record(side: str, new: list[UnreadableFile]) -> str:
    """Why a run that ended well is not among the records; `new` could not be read since."""
    if new:
        first = f"{new[0].path}: {new[0].reason}"
        return f"side {side} left no record that can be read here: {printable(first)}"
    return f"side {side} left no record: are its options those of a measured run?"


def _read(results_dir: Path) -> ReadResult:
    return store.read_records([results_dir] if results_dir.exists() else [])


def _labelled(label: str, found: ReadResult) -> list[RunRecord]:
    records = [record for _, record in found.records if record.label == label]
    return sorted(records, key=lambda record: record.started_utc)


def _contrast(records: dict[str, list[RunRecord]], looks: int, wanted: float) -> Comparison:
    from bench.analysis.case_comparison import compare_case
    from bench.analysis.cases import match_cases
    from bench.analysis.run_sets import RunSet

    base, new = (RunSet(side, tuple(runs)) for side, runs in records.items())
    (case,) = match_cases(base, new).cases
    return compare_case(case, looks, wanted)


def is_clear(line: MetricComparison) -> bool:
    """Whether it is established which side is faster, or that a difference wanted is ruled out."""
    from bench.analysis.comparison import Verdict

    return line.verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT)


def _show(contrast: Comparison, name: str, as_json: bool) -> None:
    from bench.analysis.cases import CaseMatch
    from bench.report import terminal
    from bench.report.formats.comparisons import to_json

    matched = CaseMatch((contrast.case,), (), ())
    if as_json:
        sys.stdout.write(to_json(f"{name}-a", [(f"{name}-b", matched, [contrast])]))
        return
    terminal.show(terminal.comparison(f"{name}-a", f"{name}-b", matched, [contrast]))


def _keep_floor(contrast: Comparison, results_dir: Path, file: TextIO) -> None:
    from bench.analysis.comparison import Metric
    from bench.records.sidecars import NoiseFloor, write_sidecar

    between = contrast.line(Metric.SECONDS_AN_IMAGE).difference
    if between is None or between.low is None or between.high is None:
        print("too few rounds for a noise floor: leave --rounds out", file=sys.stderr)
        return
    record = contrast.case.base[-1]
    floor = NoiseFloor(
        case=contrast.case.name,
        relative=max(abs(between.low - 1), abs(between.high - 1)),
        rounds=len(contrast.case.base),
        measured_at=datetime.now(UTC),
        device_name=record.environment.device_name,
        commit=record.environment.commit,
        torch=record.environment.torch,
    )
    path = write_sidecar(floor, results_dir / store.machine_name(record.environment))
    percent = f"{100 * floor.relative:.1f} %"
    text = f"noise floor: {percent}, the farther end of the interval; kept in {path}"
    print(text, file=file)
