"""Some runs of a folder, made again here: `mnist-bench verify --rerun`.

What a check of files cannot show: that the numbers come out of the training at all.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from bench.analysis import metrics
from bench.analysis.cases import setup_name
from bench.launch.single_run import Notify, run_once
from bench.records import store
from bench.records.machine_key import MachineKey, MachineRelation
from bench.records.schema import RunRecord
from bench.records.sidecars import find_noise_floor, read_noise_floors
from bench.text import count_of, printable, quantity
from bench.verify.checks import Check, CheckFinding, CheckResult, ResultsFolder
from bench.verify.fingerprint_checks import find_difference, fingerprint_key, same_code
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import Recipe, recipe_named, with_overrides
from mnist_cnn.user_folders import temporary_folder

ACCURACY_TOLERANCE = 0.003
"""Largest difference of the last accuracy where equal losses are not promised: 30 of 10,000 images,
four standard deviations of the difference between two seeds of `fast` in the committed records.
Shorter schedules scatter more: for them a larger difference is a doubt, not a fault."""

RunAgain = Callable[[Sequence[str]], RunRecord | None]
"""Makes a run with these options of `run`; None where it left no record."""


@dataclass(frozen=True, slots=True)
class _Comparison:
    """A run and its repetition."""

    name: str
    """Name of the record's file."""
    record: RunRecord
    again: RunRecord
    noise_floor: float
    """Relative noise floor of the set-up on this machine; 0 where none was measured."""


def rerun(
    folder: ResultsFolder, count: int, notify: Notify, run_again: RunAgain | None = None
) -> CheckResult:
    """Make some completed runs of a folder again, and compare them with their records.

    Args:
        folder: the records, of which the system's random numbers pick some.
        count: number of runs; all where the folder has fewer.
        notify: gets a line before each run.
        run_again: makes a run; None for a process of its own.

    Raises:
        UsageError: the folder has no completed run.
        KeyboardInterrupt: a run was interrupted.
    """
    completed = [(name, record) for name, record in folder.records if record.counts]
    if not completed:
        raise UsageError("--rerun finds no completed run in the folder")
    picked = random.SystemRandom().sample(completed, min(count, len(completed)))
    floors = read_noise_floors([folder.path])
    findings: list[CheckFinding] = []
    notes: list[str] = []
    for name, record in picked:
        notify(f"mnist-bench: run {name} again: {setup_name(record)}, seed {record.seed}")
        try:
            options = options_of(record)
        except UsageError as error:
            findings.append(CheckFinding(f"{name}: cannot be run again: {error}", unknown=True))
            continue
        again = (run_again or _run_in_process)(options)
        if again is None:
            findings.append(CheckFinding(f"{name}: its options left no record here", unknown=True))
            continue
        machine = MachineKey.of(record.environment).digest
        floor = find_noise_floor(setup_name(record), record.setup.device_name, floors, machine)
        comparison = _Comparison(name, record, again, floor)
        findings += _findings(comparison)
        notes += _notes(comparison)
    return CheckResult(RERUN, tuple(findings), tuple(notes))


def options_of(record: RunRecord) -> list[str]:
    """The options of `run` that repeat a run on this checkout.

    Raises:
        UsageError: this checkout has another recipe of that name.
    """
    setup, protocol = record.setup, record.protocol
    options = ["--seed", str(record.seed), "--target-accuracy", str(protocol.target_accuracy)]
    options += _recipe_options(record)
    options += ["--device", setup.device, "--precision", setup.precision]
    options += ["--kernels", setup.kernels, "--threads", str(setup.threads)]
    if setup.processes > 1:
        options += ["--processes", str(setup.processes)]
    if protocol.stop_at_target:
        options.append("--stop-at-target")
    if setup.machines > 1:
        raise UsageError("several machines made it")
    return options


def _recipe_options(record: RunRecord) -> list[str]:
    """The options that give the record's recipe from this checkout's one of the same name."""
    values = record.recipe
    recipe = recipe_named(str(values.get("name")))
    options = ["--recipe", recipe.name]
    changed: dict[str, int | str | None] = {"epochs": None, "pipeline": None, "batch_size": None}
    for field in changed:
        value = values.get(field)
        if value != getattr(recipe, field) and isinstance(value, int | str):
            changed[field] = value
            options += [f"--{field.replace('_', '-')}", str(value)]
    repeated = with_overrides(recipe, **changed)  # type: ignore[arg-type]
    other = _other_field(repeated, record)
    if other is not None:
        raise UsageError(
            f"{other} of this checkout's {recipe.name} is {getattr(repeated, other)}, of the "
            f"record's {printable(str(values.get(other)))}: check out its commit, "
            f"{(record.environment.commit or 'unknown')[:12]}"
        )
    return options


def _other_field(recipe: Recipe, record: RunRecord) -> str | None:
    """A field of the recipe that the record has and that differs; None where there is none."""
    free = "memory_format"  # the device decides it
    values = recipe.values()
    shared = (name for name in values if name in record.recipe and name != free)
    return next((name for name in shared if values[name] != record.recipe[name]), None)


def _run_in_process(options: Sequence[str]) -> RunRecord | None:
    """Run once in a process of its own, in a folder that is removed."""
    with temporary_folder() as folder:
        run_once([*options, "--results-dir", str(folder)])
        records = [record for _, record in store.read_records([folder]).records]
    return records[0] if records else None


def _promises_equal_losses(comparison: _Comparison) -> bool:
    """Whether code, kernels and machine are such that both runs compute the same."""
    record, again = comparison.record, comparison.again
    key = fingerprint_key(record)
    return key is not None and key == fingerprint_key(again) and same_code(record, again)


def _findings(comparison: _Comparison) -> Iterator[CheckFinding]:
    """What the repetition shows to be wrong, or to be doubtful."""
    name, record, again = comparison.name, comparison.record, comparison.again
    if not again.counts:
        yield CheckFinding(f"{name}: run again, it was {again.outcome}", unknown=True)
        return
    if _promises_equal_losses(comparison):
        if difference := find_difference(record, again):
            yield CheckFinding(f"{name}: {difference} as when it was run again")
    elif record.final_accuracy is not None and again.final_accuracy is not None:
        difference_of_accuracy = abs(record.final_accuracy - again.final_accuracy)
        if difference_of_accuracy > ACCURACY_TOLERANCE:
            yield CheckFinding(
                f"{name}: {record.final_accuracy:.2%} right, but {again.final_accuracy:.2%} when "
                f"it was run again; {ACCURACY_TOLERANCE:.2%} is allowed",
                unknown=len(record.epochs) < recipe_named(str(record.recipe["name"])).epochs,
            )
    ratio = _time_ratio(comparison)
    if ratio is not None and _knows_time(comparison) and ratio > 1 + comparison.noise_floor:
        yield CheckFinding(
            f"{name}: it took {ratio - 1:.1%} longer when it was run again, more than the noise "
            f"floor of {comparison.noise_floor:.1%}: run again on the idle machine",
            unknown=True,
        )


def _notes(comparison: _Comparison) -> Iterator[str]:
    """What was compared, and what could not be."""
    exact = _promises_equal_losses(comparison)
    compared = (
        f"losses of {count_of(len(comparison.again.epochs), 'epoch')} compared exactly"
        if exact
        else "last accuracy compared: commit, code, kernels or machine do not promise equal losses"
    )
    ratio = _time_ratio(comparison)
    if ratio is None:
        time = "time unknown"
    elif _knows_time(comparison):
        time = f"training took {quantity(ratio)} times as long"
    else:
        time = (
            f"training took {quantity(ratio)} times as long, which shows nothing: not known to be "
            "the same machine, or no noise floor lies beside the records"
        )
    yield f"{comparison.name}: {compared}; {time}"


def _knows_time(comparison: _Comparison) -> bool:
    """Whether times can be compared: the same machine, with a measured noise floor."""
    here, there = (
        MachineKey.of(record.environment) for record in (comparison.record, comparison.again)
    )
    known = here.digest is not None and there.digest is not None
    same = here.relation(there) is MachineRelation.SAME
    return known and same and comparison.noise_floor > 0


def _time_ratio(comparison: _Comparison) -> float | None:
    """Seconds an image of the repetition, divided by the record's."""
    before, after = (
        metrics.images_per_second(record) for record in (comparison.record, comparison.again)
    )
    return None if not before or not after else before / after


RERUN = Check(
    "rerun",
    "runs that were picked by chance came out the same when they were made again here",
    "Ask whoever made the records; where another commit or machine is the cause, rerun there.",
    lambda _: (),
)
