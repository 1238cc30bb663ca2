"""A benchmark writes one plan before its first run, and each record names what was before it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.launch.result import save_or_complain
from bench.measure.plan_chain import PlanChain, PlannedBenchmark
from bench.measure.request import RunRequest
from bench.records import benchmark_plan, store
from bench.records.schema import RunRecord
from mnist_cnn.recipe import FAST
from tests.commands import BIN, launch
from tests.factories import make_benchmark, make_record
from tests.stand_ins import FEWER_IMAGES

TINY = ("--recipe", "fast", "--epochs", "2", "--threads", "1", "--device", "cpu", "--quiet")


def make_chain(record: RunRecord, results: Path) -> PlanChain:
    planned = PlannedBenchmark(
        benchmark_id=record.benchmark_id,
        recipe=FAST,
        request=RunRequest(command=("run",), recipe=FAST),
        setup=lambda: record.setup,
        environment=record.environment,
    )
    return PlanChain(planned, results)


def save(records: Sequence[RunRecord], chain: PlanChain, results: Path) -> list[Path]:
    chain.write_plan()
    paths = []
    for record in records:
        path = save_or_complain(chain.link(record), results)
        assert path is not None
        chain.add(path)
        paths.append(path)
    return paths


def read(path: Path) -> RunRecord:
    (record,) = (record for _, record in store.read_records([path]).records)
    return record


def test_records_and_plans_form_a_chain(tmp_path: Path) -> None:
    runs = make_benchmark((6.4, 6.5))
    first, second = save(runs, make_chain(runs[0], tmp_path), tmp_path)
    (plan,) = benchmark_plan.plan_files(first.parent)
    links = [read(path).plan for path in (first, second)]
    assert [link and link.plan_sha256 for link in links] == 2 * [benchmark_plan.file_sha256(plan)]
    assert links[0] is not None
    assert links[0].previous_sha256 is None
    assert links[1] is not None
    assert links[1].previous_sha256 == benchmark_plan.file_sha256(first)

    other = make_record(benchmark_id="c" * 32)
    save([other], make_chain(other, tmp_path), tmp_path)
    newest = benchmark_plan.read_plan(benchmark_plan.plan_files(first.parent)[-1])
    assert newest.previous_plan_sha256 == benchmark_plan.file_sha256(plan)
    assert newest.previous_record_sha256 == benchmark_plan.file_sha256(second)


def test_another_process_of_the_benchmark_keeps_its_plan(tmp_path: Path) -> None:
    runs = make_benchmark((6.4, 6.5))
    (first,) = save(runs[:1], make_chain(runs[0], tmp_path), tmp_path)
    (second,) = save(runs[1:], make_chain(runs[0], tmp_path), tmp_path)
    assert len(benchmark_plan.plan_files(first.parent)) == 1
    links = [read(path).plan for path in (first, second)]
    assert links[0] == links[1]


def test_a_plan_that_cannot_be_written_is_said_and_ends_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = make_record()
    (tmp_path / "results").write_text("a file, where the folder should be")
    chain = make_chain(record, tmp_path / "results")
    chain.write_plan()
    assert "the plan could not be written" in capsys.readouterr().err
    assert chain.link(record) == record


def run(results: Path, *options: str) -> None:
    done = launch(
        [BIN / "mnist-bench", "run", *TINY, "--results-dir", results, *options], **FEWER_IMAGES
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.thorough
@pytest.mark.usefixtures("mnist_data_dir")
def test_every_way_to_run_writes_one_plan_a_benchmark(tmp_path: Path) -> None:
    run(tmp_path, "--runs", "2")
    run(tmp_path, "--runs", "2", "--parallel-seeds", "2")
    run(tmp_path, "--runs", "1", "--processes", "2")
    plans = sorted(tmp_path.rglob("*.plan"))
    records = [record for _, record in store.read_records([tmp_path]).records]
    by_plan: dict[str, set[str]] = {}
    for record in records:
        assert record.plan is not None
        by_plan.setdefault(record.plan.plan_sha256, set()).add(record.benchmark_id)
    assert len(records) == 5
    assert set(by_plan) == {benchmark_plan.file_sha256(path) for path in plans}
    assert all(len(benchmarks) == 1 for benchmarks in by_plan.values())
    assert len(by_plan) == len(plans) == 3
    checked = launch([BIN / "mnist-bench", "verify", tmp_path, "--json"])
    checks = {check["name"]: check for check in json.loads(checked.stdout)["checks"]}
    assert checks["plans"]["findings"] == []
    assert len(checks["plans"]["notes"]) == 3


@pytest.mark.slow
@pytest.mark.usefixtures("mnist_data_dir")
def test_no_plan_where_no_record_is_saved(tmp_path: Path) -> None:
    run(tmp_path, "--runs", "1", "--no-save")
    assert list(tmp_path.rglob("*")) == []
