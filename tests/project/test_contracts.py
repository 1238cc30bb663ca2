"""Rules about the files themselves that no linter checks."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[2]
LOCKS = ("requirements.txt", "requirements-uv.txt")


def modules_after(statement: str) -> set[str]:
    """Top-level names of the modules that a new interpreter loads for a statement."""
    code = (
        f"import sys; before = set(sys.modules)\n{statement}\n"
        "print(*sorted({name.partition('.')[0] for name in set(sys.modules) - before}))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, check=True, capture_output=True, text=True
    )
    return set(printed.stdout.split())


def test_no_file_of_bench_hides_another_module() -> None:
    # `accelerate launch bench/run.py` puts bench/ first on sys.path.
    ours = {path.stem for path in (ROOT / "bench").iterdir() if path.suffix in ("", ".py")}
    assert not ours & sys.stdlib_module_names
    assert not ours & metadata.packages_distributions().keys()


def test_the_commands_start_without_torch() -> None:
    loaded = modules_after(
        "import bench.cli, bench.records.store, bench.analysis.columns, bench.report.formats.json"
    )
    assert not loaded & {"torch", "torchvision", "accelerate", "numpy", "pandas", "safetensors"}


@pytest.mark.parametrize("module", ["errors", "events", "recipe"])
def test_errors_events_and_recipe_need_only_the_standard_library(module: str) -> None:
    loaded = modules_after(f"import mnist_cnn.{module}")
    assert loaded - sys.stdlib_module_names == {"mnist_cnn"}


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_is_pinned_by_hash_and_no_index_is_named(lock: str) -> None:
    text = (ROOT / lock).read_text()
    assert "://" not in text
    hashes = r"((?:    --hash=sha256:[0-9a-f]{64}.*\n)*)"
    pinned = re.findall(rf"^\S+==\S+.*\n{hashes}", text, re.MULTILINE)
    assert pinned
    assert all(pinned)


def test_the_pinned_versions_satisfy_the_requirements() -> None:
    pins = dict(re.findall(r"^([\w.-]+)==([\w.+]+)", (ROOT / LOCKS[0]).read_text(), re.MULTILINE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for line in (*project["dependencies"], *extras["test"], *extras["dev"]):
        wanted = Requirement(line)
        if wanted.name != project["name"]:
            assert wanted.specifier.contains(pins[wanted.name]), f"run scripts/lock for {line}"
