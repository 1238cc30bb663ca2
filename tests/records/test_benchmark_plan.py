"""Plans are whole or not there, written once a benchmark, and name what was before them."""

from __future__ import annotations

import hashlib
import json
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.records import benchmark_plan
from bench.records.benchmark_plan import BenchmarkPlan, SeedsRule, hashed_first_seed, seeds_rule
from tests.factories import make_plan

WRITTEN = datetime(2026, 11, 28, 4, 53, 21, 670243, tzinfo=UTC)


def plan_of(benchmark_id: str = "a" * 32, minutes: int = 0) -> BenchmarkPlan:
    return make_plan(benchmark_id=benchmark_id, written_at=WRITTEN + timedelta(minutes=minutes))


def test_a_plan_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = benchmark_plan.write_plan(plan_of(), tmp_path / "new")
    assert path.name == "20261128T045321670243Z-fast-aaaaaaaa.plan"
    assert benchmark_plan.read_plan(path) == plan_of()
    assert [file.name for file in (tmp_path / "new").iterdir()] == [path.name]


@pytest.mark.parametrize(("version", "kernels"), [(1, "avx512-bf16"), (2, "avx512")])
def test_what_the_first_version_called_avx512_multiplied_bf16(
    version: int, kernels: str, tmp_path: Path
) -> None:
    values = plan_of().model_dump(mode="json") | {"version": version}
    values["setup"]["kernels"] = "avx512"
    path = tmp_path / "a.plan"
    path.write_text(json.dumps(values), encoding="utf-8")
    assert benchmark_plan.read_plan(path).setup.kernels == kernels


def test_the_first_of_two_processes_writes_the_plan_and_the_other_keeps_it(tmp_path: Path) -> None:
    first = benchmark_plan.write_plan(plan_of(), tmp_path)
    content = first.read_bytes()
    other = plan_of().model_copy(update={"previous_plan_sha256": "0" * 64})
    assert benchmark_plan.write_plan(other, tmp_path) == first
    assert first.read_bytes() == content
    assert list(tmp_path.iterdir()) == [first]


def test_the_newest_plan_is_named_and_hidden_files_never_count(tmp_path: Path) -> None:
    assert benchmark_plan.newest_plan_sha256(tmp_path / "nowhere") is None
    assert benchmark_plan.newest_plan_sha256(tmp_path) is None
    newer = benchmark_plan.write_plan(plan_of("b" * 32, minutes=5), tmp_path)
    benchmark_plan.write_plan(plan_of(), tmp_path)
    (tmp_path / ".20991128T000000Z-fast-cccccccc.plan").write_text("{}")
    (tmp_path / "z.plan.tmp").write_text("{}")
    (tmp_path / "z.plan").symlink_to(newer)
    assert benchmark_plan.newest_plan_sha256(tmp_path) == benchmark_plan.file_sha256(newer)
    assert benchmark_plan.find_plan(tmp_path, "b" * 32) == newer
    assert benchmark_plan.find_plan(tmp_path, "b" * 8 + "c" * 24) is None


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
def test_a_pipe_and_an_endless_file_are_no_plans(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.plan")
    with pytest.raises(OSError, match="not a regular file"):
        benchmark_plan.read_plan(tmp_path / "pipe.plan")
    with (tmp_path / "sparse.plan").open("wb") as file:
        file.truncate(2**40)
    with pytest.raises(OSError, match="is larger than"):
        benchmark_plan.read_plan(tmp_path / "sparse.plan")


def test_seeds_follow_a_rule_or_were_chosen() -> None:
    commit, machine = "0123456789abcdef" * 2 + "01234567", "a1b2c3"
    hashed = hashed_first_seed(commit, machine)
    # Records name this rule: it must never give another seed.
    digest = hashlib.sha256(b"0123456789abcdef0123456789abcdef01234567/a1b2c3").hexdigest()
    assert hashed == int(digest[:8], 16)
    assert hashed != hashed_first_seed(commit, "a1b2c4")
    assert seeds_rule(0, None, None) is SeedsRule.FROM_ZERO
    assert seeds_rule(hashed, commit, machine) is SeedsRule.HASHED
    assert seeds_rule(hashed, commit, None) is SeedsRule.BY_HAND
    assert seeds_rule(5, commit, machine) is SeedsRule.BY_HAND
