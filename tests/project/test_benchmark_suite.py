"""tests/benchmarks as a user runs it: times per device, refused across machines, valid JSON."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def benchmarks(cwd: Path, *options: str) -> subprocess.CompletedProcess[str]:
    suite = str(ROOT / "tests" / "benchmarks")
    return subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-c", str(ROOT / "pyproject.toml")),
            *("--rootdir", str(ROOT), "-p", "no:cacheprovider", suite),
            *("-k", "test_augmentation and torch", *options),
        ],
        cwd=cwd,
        # A worker of pytest-xdist has the suite take no times.
        env={k: v for k, v in os.environ.items() if not k.startswith("PYTEST_")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.thorough
def test_times_are_stored_and_compared_per_device(tmp_path: Path) -> None:
    first = benchmarks(tmp_path, "--benchmark-compare", "--benchmark-compare-fail=median:10%")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "no baseline yet" in first.stdout
    assert "Traceback" not in first.stdout + first.stderr
    unknown = benchmarks(tmp_path, "--benchmark-compare=0007")
    assert unknown.returncode != 0
    assert "no stored times are called '0007'" in unknown.stdout + unknown.stderr
    assert "Traceback" not in unknown.stdout + unknown.stderr
    saved = benchmarks(tmp_path, "--benchmark-autosave")
    assert saved.returncode == 0, saved.stdout + saved.stderr
    (path,) = tmp_path.rglob("*.json")
    assert path.relative_to(tmp_path).parts[0] == ".benchmarks"
    assert "-core" in path.relative_to(tmp_path).parts[1]

    def no_constant(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    values = json.loads(path.read_text(), parse_constant=no_constant)
    assert values["benchmarks"][0]["extra_info"]["device"]
    compared = benchmarks(tmp_path, "--benchmark-compare")
    assert compared.returncode == 0, compared.stdout + compared.stderr
    values["machine_info"]["benchmarked"]["device_name"] = "NVIDIA H100"
    path.write_text(json.dumps(values))
    refused = benchmarks(tmp_path, "--benchmark-compare")
    assert refused.returncode != 0
    assert "these times are of NVIDIA H100" in refused.stdout + refused.stderr
