"""The version of the package, in a checkout and in an installed copy."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from bench.cli import main
from bench.machine.package import package_version
from bench.machine.repository import PROJECT, git_state
from bench.records.folders import LOCAL_DIR
from bench.records.store import read_records
from tests.stand_ins import FEW_IMAGES

ROOT = Path(__file__).resolve().parents[2]
VERSION = "9.8.7"


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A folder like site-packages, with the two packages and their metadata, without a library."""
    folder = tmp_path / "site"
    leave_out = shutil.ignore_patterns("__pycache__", "libnative.*")
    for package in ("bench", "mnist_cnn"):
        shutil.copytree(ROOT / package, folder / package, ignore=leave_out)
    metadata = folder / f"mnist_bench-{VERSION}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: mnist-bench\nVersion: {VERSION}\n"
    )
    return folder


def run_installed(site: Path, *words: str, more_path: str = "") -> subprocess.CompletedProcess[str]:
    """Run a Python command with the installed copy, outside any checkout."""
    work = site.parent / "work"
    work.mkdir(exist_ok=True)
    path = os.pathsep.join(filter(None, (more_path, str(site))))
    return subprocess.run(
        [sys.executable, *words],
        cwd=work,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_checkouts_version_is_that_of_its_project_file(tmp_path: Path) -> None:
    values = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
    assert package_version() == values["project"]["version"]
    assert package_version(tmp_path) is None


@pytest.mark.parametrize(
    "text", ["", "[project]\n", '[project]\nname = "other"\nversion = "1"', "["]
)
def test_another_project_file_says_nothing(text: str, installed: Path) -> None:
    (installed / "pyproject.toml").write_text(text)
    assert package_version(installed) == VERSION


def test_the_version_is_one_line_with_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    line = capsys.readouterr().out
    assert line.startswith(f"mnist-bench {package_version()}")
    assert line.count("\n") == 1
    commit, _ = git_state(PROJECT)
    assert commit is None or f", commit {commit[:12]}" in line


@pytest.mark.slow
def test_an_installed_copy_knows_its_version_without_torch(installed: Path) -> None:
    code = (
        "import sys; from bench.cli import main; main(['--version']); "
        "from bench.machine.environment import own_version; print(own_version()); "
        "from mnist_cnn.kernels import build; print(build.remedy()); "
        "print('torch' in sys.modules)"
    )
    done = run_installed(installed, "-c", code)
    version, recorded, remedy, has_torch = done.stdout.splitlines()
    assert version == f"mnist-bench {VERSION}"
    assert recorded == f"{{'mnist-bench': '{VERSION}'}}"
    assert "scripts/setup" not in remedy
    assert "pip install" in remedy
    assert has_torch == "False"


@pytest.mark.thorough
def test_an_installed_copy_says_what_is_missing_and_where_records_go(installed: Path) -> None:
    done = run_installed(
        installed,
        *("-m", "bench", "run", "--runs", "1", "--epochs", "2", "--threads", "1"),
        *("--device", "cpu", "--precision", "bf16"),
        more_path=FEW_IMAGES["PYTHONPATH"],
    )
    assert done.returncode == 0, done.stderr
    ((path, record),) = read_records([installed.parent / "work" / LOCAL_DIR]).records
    folder = path.parent.relative_to(installed.parent / "work")
    assert folder.parent == LOCAL_DIR
    lines = done.stderr.splitlines()
    assert lines.index(f"records go to {folder}") < lines.index("run 1 of 1: seed 0")
    assert sum("pip install" in line for line in lines) == 1
    assert (record.environment.commit, record.environment.version) == (None, VERSION)
