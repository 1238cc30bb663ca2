"""The committed records, for the tests of this room that only read them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.report.exports import ROOT


@pytest.fixture(scope="session")
def committed_results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the records that are committed: others may lie beside them."""
    folder = tmp_path_factory.mktemp("committed")
    listed = subprocess.run(
        ["git", "ls-files", "results"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    for name in listed:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture
def real(committed_results: Path) -> Path:
    """Twenty runs of `fast`, five of which missed, and eleven of other set-ups."""
    return committed_results / "results" / "intel-xeon-2-cores"
