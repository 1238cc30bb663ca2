"""Copies of committed records, for tests to tamper with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bench.records import store
from tests.verify.tampering import CLOSED


@pytest.fixture
def closed(committed: Path) -> Path:
    """Three committed records that belong together, unpublished."""
    return _selected(committed, "intel-xeon-2-cores", CLOSED)


@pytest.fixture
def one_by_one(committed: Path) -> Path:
    """Seven committed runs of a command each, seeds 0 to 6."""
    return _selected(committed, "studies/xeon-cold-starts", "")


def _selected(committed: Path, name: str, benchmark: str) -> Path:
    folder = committed / "contributed"
    folder.mkdir()
    for path, record in store.read_records([committed / "results" / name]).records:
        if record.benchmark_id.startswith(benchmark):
            shutil.copy(path, folder)
    return folder
