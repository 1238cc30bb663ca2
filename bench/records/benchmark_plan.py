"""The plan of a benchmark, written before its first run: so a dropped or repeated attempt shows.

A plan names the newest plan and the newest record that lay in the machine's folder before it, by
their digests. A benchmark that was deleted, and a record that was edited, break this chain.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Annotated

from pydantic import Field, JsonValue, model_validator

from bench.records.model import Count, Flag, Model, Moment, Whole, in_utc, parse_document
from bench.records.record_file import LARGEST_RECORD_BYTES
from bench.records.setup import ProtocolValues, Setup, with_todays_kernels
from mnist_cnn.disk import read_file, write_new_file

PLAN_SUFFIX = ".plan"
PLANNED_SINCE = 8
"""The first schema version whose saved records have a plan."""
_MOST_PLAN_BYTES = 256 * 1024
_HASHED_BYTES = 4
"""Length of the part of the digest that gives a seed."""


class SeedsRule(StrEnum):
    """How the seeds of a benchmark were chosen; each next run adds 1 to the first seed."""

    FROM_ZERO = "0 to n-1"
    HASHED = "from SHA-256 of commit and machine key"
    BY_HAND = "by hand"


class BenchmarkPlan(Model):
    """What a benchmark is going to measure."""

    version: Annotated[Whole, Field(ge=1, le=2)] = 2
    """Version 2 names compiled code as version 9 of records does."""
    benchmark_id: str
    """Identifier that the records of the benchmark share."""
    written_at: Moment
    """UTC; before the first run started."""
    recipe: dict[str, JsonValue]
    """Every field of the recipe."""
    protocol: ProtocolValues
    """The protocol; its `runs` is the number of runs that are to be made."""
    seeds_rule: SeedsRule
    first_seed: Count
    setup: Setup
    """The set-up, as it was known before the first run."""
    machine: str | None
    """Digest of the machine key; null where the machine is not fully known."""
    commit: str | None
    dirty: Flag | None
    source_sha256: str | None
    """SHA-256 of the source code; null where it is not known."""
    previous_plan_sha256: str | None
    """SHA-256 of the newest plan in the folder before this one; null for the folder's first."""
    previous_record_sha256: str | None
    """SHA-256 of the newest record in the folder when the plan was written; null without one."""

    @property
    def written_utc(self) -> datetime:
        """When it was written; a plan without a time zone means UTC."""
        return in_utc(self.written_at)

    @model_validator(mode="before")
    @classmethod
    def _names_kernels_as_today(cls, values: object) -> object:
        if isinstance(values, dict) and values.get("version") == 1:
            return with_todays_kernels(values)
        return values


def hashed_first_seed(commit: str, machine: str) -> int:
    """A first seed that nobody can choose: it follows from the commit and the machine key."""
    digest = hashlib.sha256(f"{commit}/{machine}".encode()).digest()
    return int.from_bytes(digest[:_HASHED_BYTES])


def seeds_rule(first_seed: int, commit: str | None, machine: str | None) -> SeedsRule:
    """The rule that a first seed follows."""
    if first_seed == 0:
        return SeedsRule.FROM_ZERO
    known = commit is not None and machine is not None
    if known and first_seed == hashed_first_seed(commit or "", machine or ""):
        return SeedsRule.HASHED
    return SeedsRule.BY_HAND


def plan_name(plan: BenchmarkPlan) -> str:
    """The name of a plan's file: when it was written, its recipe and its benchmark's id."""
    recipe = _slug(str(plan.recipe.get("name") or ""))[:60] or "unnamed"
    written = f"{plan.written_utc:%Y%m%dT%H%M%S%fZ}"
    return f"{written}-{recipe}-{_slug(plan.benchmark_id)[:8]}{PLAN_SUFFIX}"


def write_plan(plan: BenchmarkPlan, folder: Path) -> Path:
    """Write a plan; when this returns it is on the disk, whole.

    Where a process of the same benchmark has written the plan already, that one is kept.

    Raises:
        OSError: the plan cannot be written.
    """
    final = folder / plan_name(plan)
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        write_new_file(final, (plan.model_dump_json(indent=2) + "\n").encode())
    return final


def read_plan(path: Path) -> BenchmarkPlan:
    """Read a plan.

    Raises:
        OSError: it cannot be read, is not a regular file or is too large.
        ValueError: it is no plan.
    """
    return parse_document(BenchmarkPlan, read_file(path, _MOST_PLAN_BYTES))


def file_sha256(path: Path) -> str:
    """SHA-256 of a plan's or a record's file.

    Raises:
        OSError: it cannot be read, is not a regular file or is too large.
    """
    return hashlib.sha256(read_file(path, LARGEST_RECORD_BYTES)).hexdigest()


def plan_files(folder: Path) -> list[Path]:
    """The plans in a folder, not below it, the oldest first; hidden files are none."""
    return _visible_files(folder, PLAN_SUFFIX)


def newest_plan_sha256(folder: Path) -> str | None:
    """Digest of the newest plan in a folder; None without one."""
    return _newest_sha256(plan_files(folder))


def newest_record_sha256(folder: Path) -> str | None:
    """Digest of the newest record in a folder; None without one."""
    return _newest_sha256(_visible_files(folder, ".json"))


def find_plan(folder: Path, benchmark_id: str) -> Path | None:
    """The file of a benchmark's plan; None where it has not been written."""
    ending = f"-{_slug(benchmark_id)[:8]}{PLAN_SUFFIX}"
    for path in plan_files(folder):
        if path.name.endswith(ending):
            try:
                plan = read_plan(path)
            except (OSError, ValueError):
                continue
            if plan.benchmark_id == benchmark_id:
                return path
    return None


def _visible_files(folder: Path, suffix: str) -> list[Path]:
    """Files in a folder in the order of their names, which begin with a time."""
    if not folder.is_dir():
        return []
    paths = (path for path in folder.iterdir() if path.suffix == suffix)
    return sorted(p for p in paths if not p.name.startswith(".") and not p.is_symlink())


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _newest_sha256(paths: list[Path]) -> str | None:
    return file_sha256(paths[-1]) if paths else None
