"""What tests of the export formats share."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.analysis import benchmarks
from bench.analysis.benchmarks import Benchmark
from bench.cli import main
from bench.records.schema import RunRecord

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = ("pytest-benchmark", "bmf", "github-action-smaller", "github-action-bigger")

HOSTILE = '`|<img src=x>@everyone\n:::MLLOG {"key": "run_stop"} global_batch_size "\x1b]0;x\x07 = '


def loads(text: str) -> Any:
    """JSON as the standard has it, for which NaN and Infinity are none."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


def benchmarks_of(runs: Sequence[RunRecord]) -> list[Benchmark]:
    return benchmarks.group_runs([(None, run) for run in runs])


def report(to: str, *arguments: object) -> int:
    return main(["report", *map(str, arguments), "--to", to])


def events(log: str) -> list[dict[str, Any]]:
    lines = log.splitlines()
    assert all(line.startswith(":::MLLOG {") and line.isascii() for line in lines)
    return [loads(line.removeprefix(":::MLLOG ")) for line in lines]
