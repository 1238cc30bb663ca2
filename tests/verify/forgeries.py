"""Forged folders of records, each made from committed ones: what was done, and what must find it.

The honest folder has two committed benchmarks, written again as `run` would write them today: with
plans, and chained. Nothing else of them is changed.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from bench.records import benchmark_plan, store
from bench.records.benchmark_plan import BenchmarkPlan
from bench.records.machine_key import MachineKey
from bench.records.schema import PlanLink, RunRecord
from bench.records.sidecars import PeakFlops, write_sidecar

Values = dict[str, Any]
Benchmarks = list[list[RunRecord]]
"""The runs of each benchmark, the oldest benchmark first."""

BENCHMARKS = ("55d4e4a2", "7691c330")
"""Twenty committed runs of `fast`, then three of `reference`; both of one machine and commit."""
MISSED = 12
"""Index of a run of the first benchmark that missed the target."""


def committed_benchmarks(results: Path) -> Benchmarks:
    """The two benchmarks, as version 8, with ids of their own and times a little longer.

    So the committed records count as other runs: the same machine repeats them.
    """
    runs = [record for _, record in store.read_records([results / "intel-xeon-2-cores"]).records]

    def made_again(values: Values) -> None:
        values |= {"schema_version": 8, "run_id": uuid.uuid4().hex}
        _faster(0.9999, cpu_too=True)(values)

    return [
        [
            changed(run, made_again)
            for run in sorted(runs, key=lambda run: run.run_index)
            if run.benchmark_id.startswith(benchmark)
        ]
        for benchmark in BENCHMARKS
    ]


def changed(record: RunRecord, change: Callable[[Values], object]) -> RunRecord:
    """A record with something changed, and its summaries made to fit."""
    values = json.loads(store.to_json(record))
    change(values)
    evaluations = values["evaluations"]
    target = values["protocol"]["target_accuracy"]
    reached = [e["epoch"] for e in evaluations if e["correct"] / e["samples"] >= target]
    values["target_reached_epoch"] = reached[0] if reached else None
    values["final_accuracy"] = (
        evaluations[-1]["correct"] / evaluations[-1]["samples"] if evaluations else None
    )
    values["samples_seen"] = sum(epoch["samples"] for epoch in values["epochs"])
    return RunRecord.model_validate(values)


def write_chained(benchmarks: Benchmarks, folder: Path) -> None:
    """Write benchmarks as `run` does: a plan, then each record, linked to what was before."""
    folder.mkdir(exist_ok=True)
    for records in benchmarks:
        write_benchmark(plan_of(records, folder), records, folder)


def write_benchmark(plan: BenchmarkPlan, records: Sequence[RunRecord], folder: Path) -> None:
    """Write a plan, and records that name it and each other."""
    sha256 = benchmark_plan.file_sha256(benchmark_plan.write_plan(plan, folder))
    previous = None
    for record in records:
        link = PlanLink(plan_sha256=sha256, previous_sha256=previous)
        path = write_record(record.model_copy(update={"plan": link}), folder)
        previous = benchmark_plan.file_sha256(path)


def plan_of(records: Sequence[RunRecord], folder: Path) -> BenchmarkPlan:
    first = records[0]
    environment, machine = first.environment, MachineKey.of(first.environment).digest
    return BenchmarkPlan(
        benchmark_id=first.benchmark_id,
        written_at=first.started_at - timedelta(seconds=1),
        recipe=first.recipe,
        protocol=first.protocol,
        seeds_rule=benchmark_plan.seeds_rule(first.seed, environment.commit, machine),
        first_seed=first.seed,
        setup=first.setup,
        machine=machine,
        commit=environment.commit,
        dirty=environment.dirty,
        source_sha256=environment.source_sha256,
        previous_plan_sha256=benchmark_plan.newest_plan_sha256(folder),
        previous_record_sha256=benchmark_plan.newest_record_sha256(folder),
    )


def write_record(record: RunRecord, folder: Path) -> Path:
    path = folder / store.file_name(record)
    path.write_text(store.to_json(record), encoding="utf-8")
    return path


@dataclass(frozen=True)
class Forgery:
    """One way to deceive, and the check that finds it; None for one that no check can find."""

    name: str
    check: str | None
    says: str
    """Part of the finding."""
    forge: Callable[[Benchmarks, Path], None]
    """Writes the forged folder."""


def _before_writing(change: Callable[[Benchmarks], object]) -> Callable[[Benchmarks, Path], None]:
    """Forge the runs, then write them with a chain that fits: the forger knows this project."""

    def forge(benchmarks: Benchmarks, folder: Path) -> None:
        change(benchmarks)
        write_chained(benchmarks, folder)

    return forge


def _after_writing(change: Callable[[Benchmarks, Path], object]) -> Callable[..., None]:
    """Forge files that were written honestly."""

    def forge(benchmarks: Benchmarks, folder: Path) -> None:
        write_chained(benchmarks, folder)
        change(benchmarks, folder)

    return forge


def _in_every_run(change: Callable[[Values], object]) -> Callable[[Benchmarks, Path], None]:
    def forge(benchmarks: Benchmarks) -> None:
        for records in benchmarks:
            records[:] = [changed(record, change) for record in records]

    return _before_writing(forge)


def _in_run(
    change: Callable[[Values], object], benchmark: int = 0, run: int = MISSED
) -> Callable[[Benchmarks, Path], None]:
    def forge(benchmarks: Benchmarks) -> None:
        benchmarks[benchmark][run] = changed(benchmarks[benchmark][run], change)

    return _before_writing(forge)


# --- What is done


def _delete(benchmark: int, run: int) -> Callable[[Benchmarks, Path], None]:
    return lambda benchmarks, folder: (
        folder / store.file_name(benchmarks[benchmark][run])
    ).unlink()


def _delete_attempt(benchmarks: Benchmarks, folder: Path) -> None:
    """All records of the first benchmark; its plan stays."""
    for record in benchmarks[0]:
        (folder / store.file_name(record)).unlink()


def _delete_attempt_and_plan(benchmarks: Benchmarks, folder: Path) -> None:
    _delete_attempt(benchmarks, folder)
    benchmark_plan.plan_files(folder)[0].unlink()


def _run_again(benchmarks: Benchmarks, folder: Path) -> None:
    """A run that missed is replaced by one of the same seed that a later process made."""
    old = benchmarks[0][MISSED]
    path = folder / store.file_name(old)
    (record,) = (r for _, r in store.read_records([path]).records)
    path.unlink()
    assert record.plan is not None
    link = record.plan.model_copy(update={"previous_sha256": None})
    write_record(record.model_copy(update={"run_id": uuid.uuid4().hex, "plan": link}), folder)


def _edit_file(benchmarks: Benchmarks, folder: Path) -> None:
    """A record's label, by hand: nothing else in it contradicts that."""
    path = folder / store.file_name(benchmarks[1][0])
    path.write_text(path.read_text().replace('"label": null', '"label": "quiet"'))


def _planned_later(benchmarks: Benchmarks, folder: Path) -> None:
    """The runs first, then a plan that fits them."""
    for path in benchmark_plan.plan_files(folder):
        path.unlink()
    for path in folder.glob("*.json"):
        path.unlink()
    late = benchmarks[0][0].started_at + timedelta(hours=1)
    plan = plan_of(benchmarks[0], folder).model_copy(update={"written_at": late})
    write_benchmark(plan, benchmarks[0], folder)


def _without_plan(benchmarks: Benchmarks, folder: Path) -> None:
    folder.mkdir(exist_ok=True)
    for records in benchmarks:
        for record in records:
            write_record(record, folder)


def _cut_train_laps(values: Values) -> None:
    """Up to 0.24 s less of every train lap: 25,224 images/s once became 524,149."""
    for lap in values["laps"]:
        if lap["kind"] == "train":
            lap["seconds"] = max(lap["seconds"] - 0.24, 0.01)


def _faster(factor: float, *, cpu_too: bool) -> Callable[[Values], None]:
    """All times shorter, in every place that has them."""

    def change(values: Values) -> None:
        for lap in values["laps"]:
            lap["seconds"] /= factor
            lap["start_seconds"] /= factor
        load = values["load"]
        load["elapsed_seconds"] /= factor
        if cpu_too:
            load["own_seconds"] /= factor
            load["busy_seconds"] /= factor

    return change


def _above_the_peak(benchmarks: Benchmarks, folder: Path) -> None:
    """All times a fiftieth, CPU time too, beside an honest peak."""
    change = _faster(50, cpu_too=True)
    for records in benchmarks:
        records[:] = [changed(record, change) for record in records]
    write_chained(benchmarks, folder)
    record = benchmarks[0][0]
    peak = PeakFlops(
        device="cpu",
        device_name=record.setup.device_name,
        precision=record.setup.precision,
        threads=record.setup.threads,
        flops_per_second=3e12,
        side=4096,
        measured_at=record.started_at,
        commit=None,
        torch=record.environment.torch,
    )
    write_sidecar(peak, folder)


def _another_device(values: Values) -> None:
    values["setup"]["device_name"] = "AMD EPYC 9965"


def _another_recipe_asked_for(values: Values) -> None:
    command = values["command"]
    values["command"] = [word.replace("fast", "reference") for word in command]
    if command == values["command"]:
        values["command"] += ["--recipe", "fast"]


def _tuned(values: Values) -> None:
    values["recipe"]["peak_learning_rate"] *= 1.1
    values["division"] = "open"


def _miss_called_failure(values: Values) -> None:
    values |= {"status": "failed", "reason": "RuntimeError: the display was closed"}
    values["mistakes"] = None


def _miss_made_a_hit(values: Values) -> None:
    values["evaluations"][-1]["correct"] = 9_941
    values["mistakes"] = None


def _best_run_for_a_miss(benchmarks: Benchmarks) -> None:
    """The losses of the best run under the seed of a run that missed, with laps of its own."""
    best = max(benchmarks[0], key=lambda record: record.final_accuracy or 0)
    donor = json.loads(store.to_json(best))

    def change(values: Values) -> None:
        for part in ("epochs", "evaluations", "mistakes"):
            values[part] = donor[part]

    benchmarks[0][MISSED] = changed(benchmarks[0][MISSED], change)


def _laps_of_the_fastest(benchmarks: Benchmarks) -> None:
    """Every run with the times of the fastest one."""
    fastest = min(benchmarks[0], key=lambda record: record.load.elapsed_seconds)
    donor = json.loads(store.to_json(fastest))

    def change(values: Values) -> None:
        values["laps"], values["load"] = donor["laps"], donor["load"]

    benchmarks[0][:] = [changed(record, change) for record in benchmarks[0]]


def _lucky_seeds(benchmarks: Benchmarks) -> None:
    """The three seeds from 1 on of twenty, as if nobody had tried others."""

    def change(values: Values) -> None:
        values["run_index"] -= 1
        values["protocol"]["runs"] = 3
        command = [re.sub("^20$", "3", word) for word in values["command"]]
        values["command"] = [*command, "--seed", "1"]

    benchmarks[:] = [[changed(record, change) for record in benchmarks[0][1:4]]]


def _other_code(values: Values) -> None:
    values["environment"]["source_sha256"] = "0" * 64


def _other_commit(values: Values) -> None:
    values["environment"]["commit"] = "f" * 40


FOUND = [
    Forgery("a run left out", "seeds", "run 13 of 20 is", _after_writing(_delete(0, MISSED))),
    Forgery("an attempt left out", "plans", "and none is here", _after_writing(_delete_attempt)),
    Forgery(
        "an attempt left out with its plan",
        "plans",
        "the plan before it is not here",
        _after_writing(_delete_attempt_and_plan),
    ),
    Forgery(
        "a run repeated until it was good",
        "plans",
        "names no record that its process saved before",
        _after_writing(_run_again),
    ),
    Forgery("a record edited by hand", "plans", "or was edited", _after_writing(_edit_file)),
    Forgery(
        "a plan written after the runs", "plans", "after it started", _after_writing(_planned_later)
    ),
    Forgery("no plan at all", "plans", "it has no plan", _without_plan),
    Forgery("train laps cut", "laps", "are in no lap", _in_every_run(_cut_train_laps)),
    Forgery(
        "all times shorter",
        "plausible",
        "s of CPU time of its own in",
        _in_every_run(_faster(1.3, cpu_too=False)),
    ),
    Forgery("times above the peak", "plausible", "times the peak", _above_the_peak),
    Forgery(
        "another device's name", "command", "it trained on AMD", _in_every_run(_another_device)
    ),
    Forgery(
        "another recipe than the command's",
        "command",
        "its command says --recipe",
        _in_every_run(_another_recipe_asked_for),
    ),
    Forgery(
        "a tuned recipe under a known name", "recipe", "peak_learning_rate", _in_every_run(_tuned)
    ),
    Forgery(
        "a miss called a failure",
        "status",
        "trained and evaluated everything",
        _in_run(_miss_called_failure),
    ),
    Forgery("a miss made a hit", "fingerprint", "right, not", _in_run(_miss_made_a_hit)),
    Forgery(
        "the best run in place of a miss",
        "fingerprint",
        "of another seed",
        _before_writing(_best_run_for_a_miss),
    ),
    Forgery(
        "the fastest run's laps everywhere",
        "fingerprint",
        "to the last digit",
        _before_writing(_laps_of_the_fastest),
    ),
    Forgery("seeds chosen for luck", "seeds", "follow no rule", _before_writing(_lucky_seeds)),
    Forgery(
        "changed code under a clean commit",
        "commit",
        "the code that ran is not that",
        _in_every_run(_other_code),
    ),
    Forgery(
        "an invented commit",
        "commit",
        "is not in this checkout's history",
        _in_every_run(_other_commit),
    ),
]
"""Forgeries that a check finds."""


def _newest_left_out(benchmarks: Benchmarks) -> None:
    """As if the last benchmark had never been made: nothing comes after it that names it."""
    del benchmarks[-1]


def _slightly_faster(benchmarks: Benchmarks) -> None:
    """Every time and CPU time 3 % shorter, written with a chain that fits."""
    change = _faster(1.03, cpu_too=True)
    for records in benchmarks:
        records[:] = [changed(record, change) for record in records]


def _another_machine(benchmarks: Benchmarks) -> None:
    """Everywhere the same other name, as a faster machine's records under a slower one's name."""

    def change(values: Values) -> None:
        values["setup"]["device_name"] = "Intel(R) Celeron(R) N4000"
        values["environment"]["device_name"] = "Intel(R) Celeron(R) N4000"
        values["environment"]["cpu"] = "Intel(R) Celeron(R) N4000"

    for records in benchmarks:
        records[:] = [changed(record, change) for record in records]


def _rehearsed(benchmarks: Benchmarks) -> None:
    """Attempts in another folder, or with --no-save, until one was good: only that one is here."""


def _invented(benchmarks: Benchmarks) -> None:
    """Runs that were never made, on a machine that repeats no committed run: plausible numbers."""

    def change(values: Values) -> None:
        values["environment"]["cpu"] = values["environment"]["device_name"] = "Pear P9"
        values["setup"]["device_name"] = "Pear P9"
        factor = 1 + int(values["run_id"][:4], 16) / 2**24
        _faster(factor, cpu_too=True)(values)
        for epoch in values["epochs"]:
            epoch["loss"] *= factor

    for records in benchmarks:
        records[:] = [changed(record, change) for record in records]


HIDDEN = [
    Forgery("the newest attempt left out", None, "", _before_writing(_newest_left_out)),
    Forgery("everything slightly faster", None, "", _before_writing(_slightly_faster)),
    Forgery("another machine's name everywhere", None, "", _before_writing(_another_machine)),
    Forgery("attempts that were not saved", None, "", _before_writing(_rehearsed)),
    Forgery("numbers invented without a contradiction", None, "", _before_writing(_invented)),
]
"""Forgeries that no check of files can find; docs/contributing-results.md lists each by name."""
