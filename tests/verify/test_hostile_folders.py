"""A folder that means harm ends in findings: no traceback, no hang, no gigabytes.

What would take hours or the whole memory is not timed: the tests' time limit ends it.
"""

from __future__ import annotations

import json
import os
import tracemalloc
from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.machine.repository import History
from bench.records import benchmark_plan
from bench.records.schema import RunRecord
from bench.verify import checks
from bench.verify.check_list import CHECKS
from bench.verify.privacy import find_leaks
from bench.verify.seed_checks import missing_numbers
from tests.factories import make_record, saved
from tests.verify.forgeries import plan_of

MANY = 10**9


def findings(path: Path) -> dict[str, list[str]]:
    folder = checks.read_folder(path, History(path), frozenset())
    results = checks.run_checks(folder, CHECKS)
    return {r.check.name: [finding.text for finding in r.findings] for r in results}


def of(path: Path, records: Sequence[RunRecord]) -> dict[str, list[str]]:
    saved(path, records)
    return findings(path)


def test_a_billion_planned_runs_are_one_line(tmp_path: Path) -> None:
    found = of(tmp_path, [make_record(protocol={"runs": MANY})])
    assert f"run 2 to {MANY} of {MANY} is not here" in found["seeds"][0]


def test_a_run_index_of_a_billion_is_one_line(tmp_path: Path) -> None:
    found = of(tmp_path, [make_record(protocol={"runs": MANY}, run_index=MANY, seed=MANY - 1)])
    assert f"run 1 to {MANY - 1} of {MANY} is not here" in found["seeds"][0]


def test_seeds_far_apart_are_one_line(tmp_path: Path) -> None:
    def one(seed: int) -> RunRecord:
        command = ["mnist-bench", "run", "--seed", str(seed)]
        return make_record(seed=seed, benchmark_id=f"{seed:032x}", command=command)

    found = of(tmp_path, [one(0), one(MANY**2)])
    assert any(f"seed 1 to {MANY**2 - 1} of 0 to" in text for text in found["seeds"])


@pytest.mark.parametrize("command", [[], [""], ["--seed"], ["run", "--seed"], ["x", "--threads="]])
def test_any_command_is_checked(command: list[str], tmp_path: Path) -> None:
    found = of(tmp_path, [make_record(command=command)])
    assert found["command"]


def test_missing_numbers_are_listed_as_ranges() -> None:
    assert missing_numbers({1, 2, 4, 9}, 1, 10) == "3, 5 to 8, 10"
    assert missing_numbers({1, 2}, 1, 2) == ""
    assert missing_numbers(set(), 1, MANY) == f"1 to {MANY}"
    assert missing_numbers(range(1, 100, 2), 1, 100).endswith("and more")


PIECES = (
    *("a.", "a", "a-", "a b ", ":", "0:", "0:.", "token ", "token", "eyJa-", "x://", "x://a:"),
    *("serial ", "home/", "@", "--", "-----BEGIN ", "0", "1.", "users\\", "s-", "a@", "a@b."),
)


@pytest.mark.slow
@pytest.mark.parametrize("piece", PIECES)
def test_half_a_megabyte_of_anything_is_looked_through(piece: str) -> None:
    text = piece * (500_000 // len(piece))
    list(find_leaks(json.dumps({"label": text}), ("alice",)))
    list(find_leaks(text + "!", ("alice",)))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes")
@pytest.mark.parametrize("name", ["x.plan", "x.peak", "x.noise", "x.sweep", "x.json"])
def test_a_pipe_in_place_of_a_file_is_a_finding(name: str, tmp_path: Path) -> None:
    saved(tmp_path, [make_record()])
    os.mkfifo(tmp_path / "amd-epyc-2-cores" / name)
    assert any(name in text for text in findings(tmp_path)["records"])


def test_a_plan_without_a_time_zone_is_compared(tmp_path: Path) -> None:
    records = [make_record()]
    plan = plan_of(records, tmp_path)
    saved(tmp_path, records)
    naive = plan.model_copy(update={"written_at": plan.written_at.replace(tzinfo=None)})
    benchmark_plan.write_plan(naive, tmp_path / "amd-epyc-2-cores")
    assert "plans" in findings(tmp_path)


def test_paths_in_a_document_take_little_memory() -> None:
    text = json.dumps({"k" * 50_000: [0, *["a"] * 12_000]})
    tracemalloc.start()
    list(find_leaks(text, ()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50 * 1024**2  # else 600 MB
