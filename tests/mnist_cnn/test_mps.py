"""What is done for MPS by its documentation and its issues, as far as another machine can show it.

No test here has run on MPS; .github/workflows has a machine that may.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from bench.measure import accelerator, plan
from bench.measure.precision_choice import choose_precision
from bench.measure.request import ComputeRequest
from mnist_cnn.errors import UsageError
from mnist_cnn.recipe import FAST, REFERENCE

ROOT = Path(__file__).resolve().parents[2]
WATCHED = """
import os, sys
from importlib.abc import MetaPathFinder

class Watch(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "torch":
            print(os.environ.get("PYTORCH_ENABLE_MPS_FALLBACK"))
            sys.exit(0)

sys.meta_path.insert(0, Watch())
from bench.cli import main
main(sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--recipe", "fast"], ["--profile", "trace.json"]])
def test_falling_back_to_the_cpu_is_off_before_torch_reads_whether_it_is(
    options: list[str],
) -> None:
    """Whoever has it on would have the CPU timed as the GPU."""
    done = subprocess.run(
        [sys.executable, "-c", WATCHED, "run", "--device", "mps", *options],
        cwd=ROOT,
        env=os.environ | {"PYTORCH_ENABLE_MPS_FALLBACK": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "0\n"


@pytest.mark.parametrize(("version", "precision"), [("13.6.1", None), ("14.0", "bf16")])
def test_bf16_needs_macos_14(
    version: str, precision: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.mac_ver", lambda: (version, ("", "", ""), "arm64"))
    if precision is None:
        with pytest.raises(UsageError, match="bf16"):
            choose_precision(ComputeRequest(precision="bf16"), FAST, "mps")
        assert choose_precision(ComputeRequest(), FAST, "mps") == "fp32"
    else:
        assert choose_precision(ComputeRequest(precision="bf16"), FAST, "mps") == precision


def test_activations_stay_contiguous_whatever_the_recipe_wishes_and_the_compiler_would(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for recipe in (FAST, REFERENCE):
        assert plan.fit_recipe(recipe, "mps", "torch").memory_format == "contiguous"
    name = "TORCHINDUCTOR_LAYOUT_OPTIMIZATION"
    monkeypatch.setenv(name, "")  # so that what is set below is taken back
    monkeypatch.delenv(name)
    accelerator.keep_layout("cuda", "inductor")
    accelerator.keep_layout("mps", "torch")
    assert name not in os.environ
    accelerator.keep_layout("mps", "inductor")
    assert os.environ[name] == "0"
    monkeypatch.setenv(name, "1")
    accelerator.keep_layout("mps", "inductor")
    assert os.environ[name] == "1"
