"""The image and the development container: what they copy and install exists. No image is built."""

from __future__ import annotations

import json
import re
import shutil
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.commands import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text(encoding="utf-8")
KEPT = [
    line[1:]
    for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
    if line.startswith("!")
]
"""What a build sees of the checkout."""


@pytest.mark.slow
def test_what_the_image_is_built_from_makes_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    for name in KEPT:
        if (ROOT / name).is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "libnative.*")
            shutil.copytree(ROOT / name, context / name, ignore=ignored)
        else:
            shutil.copy(ROOT / name, context)
    for name in re.findall(r"^COPY ([^-]\S*) ", DOCKERFILE, re.MULTILINE):
        assert (context / name).exists()
    monkeypatch.setenv("MNIST_BENCH_TARGET", "any")
    (wheel,) = WheelBuilder(str(context)).build(directory=str(tmp_path / "dist"))
    there = {name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".py")}
    modules = [p for package in ("bench", "mnist_cnn") for p in (ROOT / package).rglob("*.py")]
    assert there == {path.relative_to(ROOT).as_posix() for path in modules}


def test_the_development_container_is_set_up_by_the_scripts() -> None:
    folder = ROOT / ".devcontainer"
    text = (folder / "devcontainer.json").read_text(encoding="utf-8")
    container = json.loads(re.sub(r"^//.*\n", "", text, flags=re.MULTILINE))
    assert (folder / container["build"]["dockerfile"]).exists()
    assert container["postCreateCommand"].startswith("./scripts/setup && ")


def test_the_development_container_has_the_programs_that_ci_installs() -> None:
    (listed,) = re.findall(r"packages=\((.+)\)", (ROOT / ".ci/run").read_text(encoding="utf-8"))
    there = (ROOT / ".devcontainer/Dockerfile").read_text(encoding="utf-8")
    assert set(listed.split()) <= set(there.split())
