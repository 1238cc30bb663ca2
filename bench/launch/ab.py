"""An A/B experiment: two sides that take turns, until it is clear which one is faster."""

from __future__ import annotations

import random
import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from statistics import median

from bench.analysis.case_comparison import compare_case
from bench.analysis.cases import CaseMatch, match_cases
from bench.analysis.comparison import (
    Comparison,
    Metric,
    MetricComparison,
    Verdict,
)
from bench.analysis.metrics import images_per_second
from bench.analysis.run_sets import RunSet
from bench.launch import single_run
from bench.launch.checkout import Checkout, prepare_checkout
from bench.launch.single_run import Notify
from bench.records import sidecars, store
from bench.records.machine_key import MachineKey
from bench.records.schema import RunRecord
from bench.records.sidecars import MachineNoise, NoiseFloor
from bench.records.store import ReadResult, UnreadableFile
from bench.stats import sample_size
from bench.text import printable
from mnist_cnn.console import EXIT_USAGE
from mnist_cnn.errors import UsageError

FEWEST_ROUNDS = sample_size.fewest_runs(0.025, paired=True)
"""Rounds below which the times of two sides that take turns have no 95 % interval."""
LOOKS = (8, 12, 18)
"""Numbers of rounds after which the runs so far are compared. The error probability is shared among
these looks (Bonferroni; for repeated looks: Armitage, McPherson & Rowe 1969), so the experiment may
stop at the first clear answer. Seven rounds are the fewest that signed ranks can decide on."""
RESERVED_OPTIONS = ("--runs", "--seed", "--label", "--quiet", "--json", "--no-save", "--profile")
"""Options of `run` that an experiment sets itself."""


class RunFailed(Exception):
    """A run failed, so there is nothing to compare; the message names the run."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two sides."""

    options: tuple[str, ...]
    """Options of `run` for this side only."""
    checkout: Checkout | None
    """The commit to run; None for the code in this checkout, with its uncommitted changes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AbExperiment:
    """What to run and when to stop."""

    name: str
    """Start of the labels of the runs."""
    results_dir: Path
    """Folder of the records."""
    a: Side
    """The base of the comparison."""
    b: Side
    """The side that is compared with it."""
    shared_options: tuple[str, ...]
    """Options of `run` for both sides."""
    looks: tuple[int, ...] = LOOKS
    """Numbers of rounds after which the runs so far are compared; the last one is the limit."""
    difference: float = 0.05
    """Relative difference of times that matters; the experiment stops if it is ruled out."""

    @property
    def sides(self) -> dict[str, Side]:
        """Both sides by their letters."""
        return {"a": self.a, "b": self.b}

    def label(self, letter: str, stamp: str) -> str:
        """The label of a side's runs: its name, and when the experiment began."""
        return f"{self.name}-{letter} {stamp}"

    @property
    def measures_noise(self) -> bool:
        """Whether the sides are equal, so that every difference is noise."""
        return self.a == self.b


def prepare_commits(experiment: AbExperiment, project: Path, notify: Notify) -> None:
    """Make every commit of the experiment ready to run, and say where it is kept.

    Args:
        experiment: its sides may name commits.
        project: the checkout that has the commits.
        notify: gets a line for each commit.

    Raises:
        UsageError: a commit cannot be made ready.
    """
    sides = experiment.sides
    for checkout in dict.fromkeys(side.checkout for side in sides.values()):
        if checkout is not None:
            letters = [letter for letter, side in sides.items() if side.checkout == checkout]
            notify(
                f"{' and '.join(letters)}: commit {checkout.short}, kept for later use in "
                f"{printable(str(checkout.folder))}"
            )
            prepare_checkout(checkout, project)


def run_experiment(experiment: AbExperiment, notify: Notify) -> Comparison:
    """Run both sides in each round until a look is clear or the rounds are used up.

    Args:
        experiment: with its commits ready.
        notify: gets a line before each run.

    Raises:
        RunFailed: a run failed.
        UsageError: a run could not be started, or its record is missing or of another commit.
    """
    session = _Session(experiment, notify)
    try:
        for number in range(1, experiment.looks[-1] + 1):
            session.run_round(number)
            if number == 1:
                session.check_sides()
            if number in experiment.looks:
                comparison = session.compare()
                if is_clear(comparison.line(Metric.SECONDS_PER_IMAGE)):
                    break
    finally:
        session.say_where_records_are()
    return comparison


def is_clear(line: MetricComparison) -> bool:
    """Whether one side is shown to be faster, or a difference that matters is ruled out."""
    return line.verdict in (Verdict.BETTER, Verdict.WORSE, Verdict.EQUIVALENT)


class _Session:
    """The runs of one experiment so far."""

    def __init__(self, experiment: AbExperiment, notify: Notify) -> None:
        self._experiment = experiment
        self._notify = notify
        self._stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        self._records: dict[str, list[RunRecord]] = {"a": [], "b": []}
        most = experiment.looks[-1]
        self._most_rounds = str(most) if len(experiment.looks) == 1 else f"at most {most}"
        self._is_comparable = False
        self._known_problems = {problem.path for problem in self._read().problems}

    def run_round(self, number: int) -> None:
        """Run each side once, in random order."""
        # Random, so that the order is independent of any periodic load on this machine.
        for letter in random.sample(("a", "b"), 2):
            self._run(letter, number)

    def _run(self, letter: str, number: int) -> None:
        side = self._experiment.sides[letter]
        label = self._experiment.label(letter, self._stamp)
        options = [*self._experiment.shared_options, *side.options]
        options += ["--seed", str(number - 1), "--label", label]
        options += ["--results-dir", str(self._experiment.results_dir)]
        title = f"round {number} of {self._most_rounds}, {letter}"
        self._notify(title)
        status = single_run.run_once(options, side.checkout)
        if status == EXIT_USAGE:
            raise UsageError(f"{title} could not be run; see above")
        if status != 0:
            raise RunFailed(f"{title} failed, so nothing can be compared")
        results = self._read()
        records = [record for _, record in results.records if record.label == label]
        if len(records) != number:
            raise UsageError(self._missing_record(letter, results.problems))
        self._records[letter] = sorted(records, key=lambda record: record.started_utc)
        if side.checkout is not None:
            _check_commit(self._records[letter][-1], side.checkout)

    def say_where_records_are(self) -> None:
        """Say how to compare the runs again, also those of an experiment that did not end."""
        if not self._is_comparable:
            return
        labels = (self._experiment.label(letter, self._stamp) for letter in self._records)
        folder = str(self._experiment.results_dir)
        words = ["mnist-bench", "compare", *labels, "--results-dir", folder]
        self._notify(f"to compare these runs again: {printable(shlex.join(words))}")

    def check_sides(self) -> None:
        """Refuse sides that cannot be compared, before more time is spent.

        Raises:
            UsageError: they cannot be compared.
        """
        self.match()
        self._is_comparable = True

    def match(self) -> CaseMatch:
        """The runs so far, sorted into cases.

        Raises:
            UsageError: the sides cannot be compared.
        """
        base, new = (RunSet(letter, tuple(runs)) for letter, runs in self._records.items())
        return match_cases(base, new)

    def compare(self) -> Comparison:
        """Compare the runs so far."""
        (case,) = self.match().cases
        return compare_case(case, len(self._experiment.looks), self._experiment.difference)

    def _read(self) -> ReadResult:
        folder = self._experiment.results_dir
        return store.read_records([folder] if folder.exists() else [])

    def _missing_record(self, letter: str, problems: list[UnreadableFile]) -> str:
        """Why a run that ended well is not among the records."""
        for problem in problems:
            if problem.path not in self._known_problems:
                reason = printable(f"{problem.path}: {problem.reason}")
                return f"side {letter} left no record that can be read here: {reason}"
        return f"side {letter} left no record: do its options only print something?"


def _check_commit(record: RunRecord, checkout: Checkout) -> None:
    """Refuse a run that imported the code of another commit.

    Raises:
        UsageError: the record names another commit, or none.
    """
    commit = record.environment.commit
    if commit != checkout.commit:
        named = printable(commit) if commit else "no commit"
        raise UsageError(
            f"a run of commit {checkout.short} recorded {named}: nothing can be compared"
        )


def noise_floor(comparison: Comparison) -> NoiseFloor | None:
    """The largest difference between equal sides; None if there are too few rounds."""
    ratio = comparison.line(Metric.SECONDS_PER_IMAGE).difference
    if ratio is None or ratio.low is None or ratio.high is None:
        return None
    case = comparison.case
    record, runs = case.base[-1], (*case.base, *case.new)
    rates = [rate for run in runs if (rate := images_per_second(run))]
    return NoiseFloor(
        case=case.name,
        relative=max(abs(ratio.low - 1), abs(ratio.high - 1)),
        rounds=len(case.base),
        measured_at=datetime.now(UTC),
        device_name=record.environment.device_name,
        commit=record.environment.commit,
        torch=record.environment.torch,
        machine=MachineKey.of(record.environment).digest,
        source_sha256=record.environment.source_sha256,
        started_at=min(run.started_utc for run in runs),
        seconds_per_image=1 / median(rates) if rates else None,
    )


def machine_noise(floor: NoiseFloor, results_dir: Path) -> MachineNoise | None:
    """The noise of the floor's case and machine by every floor below the folder of the results.

    Raises:
        UsageError: a noise floor cannot be understood.
    """
    floors = sidecars.read_noise_floors([results_dir])
    return sidecars.find_machine_noise(floor.case, floor.device_name, floors, floor.machine)


def save_noise_floor(comparison: Comparison, floor: NoiseFloor, results_dir: Path) -> Path:
    """Write a noise floor beside the records of its machine; returns the path of the file.

    Raises:
        UsageError: the folder cannot be written to.
    """
    environment = comparison.case.base[-1].environment
    return sidecars.write_sidecar(floor, results_dir / store.machine_name(environment))
