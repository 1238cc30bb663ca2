"""A project whose scripts are tried."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.project.script_project import Project

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    folder = tmp_path / "my project"
    folder.mkdir()
    (tmp_path / "tools").mkdir()
    shutil.copytree(ROOT / "scripts", folder / "scripts")
    shutil.copytree(ROOT / "mnist_cnn/kernels/native", folder / "mnist_cnn/kernels/native")
    (folder / "mnist_cnn/kernels/native/libnative.so").touch()  # as the build leaves it
    for path in (ROOT / "hatch_build.py", ROOT / "pyproject.toml", *ROOT.glob("requirements*.txt")):
        shutil.copy(path, folder)
    return Project(folder, tmp_path / "tools")
