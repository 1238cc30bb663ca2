"""The action for other repositories: its steps, executed in a folder that stands for a runner.

`mnist-bench` is the real one but for `run`, which makes simulated records at once; it is where the
set-up installs it, and nowhere else on the PATH. What the cache keeps stays between two jobs.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.project.simulated_runs import SimulatedCache, install_stand_in, search_path

ROOT = Path(__file__).resolve().parents[2]
ACTION: dict[str, Any] = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
STEPS: list[dict[str, Any]] = ACTION["runs"]["steps"]
MAIN = "github.ref_name == github.event.repository.default_branch"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("bash") is None, reason="no bash"),
]


@dataclass(frozen=True, slots=True)
class Job:
    """What came of a job with the action."""

    status: int
    """Exit status of the first step that failed; 0 where none did."""
    summary: str
    outputs: str


def evaluated(text: str, inputs: dict[str, str], outputs: Path) -> str:
    """The value of an expression: an input, or what an earlier step wrote to its outputs.

    Args:
        text: the expression, or text around it.
        inputs: the action's inputs.
        outputs: the file that GITHUB_OUTPUT names; all steps share it here.
    """
    written = dict(line.split("=", 1) for line in outputs.read_text().splitlines())
    text = re.sub(r"\$\{\{ inputs\.([\w-]+) \}\}", lambda match: inputs[match[1]], text)
    return re.sub(
        r"\$\{\{ steps\.\w+\.outputs\.(\w+) \}\}", lambda match: written.get(match[1], ""), text
    )


def run_action(
    runner: Path, number: int, slower: float = 1.0, *, is_main: bool = True, **given: str
) -> Job:
    """One job: every step of the action whose condition holds."""
    inputs = {name: values["default"] for name, values in ACTION["inputs"].items()}
    inputs |= {name.replace("_", "-"): value for name, value in given.items()}
    action, files = runner / "action", runner / f"job-{number}"
    for folder in (files, runner / "work"):
        folder.mkdir(parents=True, exist_ok=True)
    install_stand_in(action)
    environment = os.environ | {"NUMBER": str(number)}
    for name in ("OUTPUT", "PATH", "STEP_SUMMARY"):
        (files / name).touch()
        environment[f"GITHUB_{name}"] = str(files / name)
    environment["GITHUB_ACTION_PATH"] = str(action)
    status, cache = 0, None
    for step in STEPS:
        condition = step.get("if")
        assert condition in (None, "always()", MAIN)
        if status and condition != "always()":
            continue
        if "uses" in step:
            path = runner / "work" / step["with"]["path"]
            key = evaluated(step["with"]["key"], inputs, files / "OUTPUT")
            cache = SimulatedCache(runner / "cache", key, path)
            continue
        if condition == MAIN and not is_main:
            continue
        variables = {
            name: evaluated(text, inputs, files / "OUTPUT")
            for name, text in step.get("env", {}).items()
        }
        ended = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", step["run"]],
            cwd=runner / "work",
            env=environment
            | {"PATH": search_path(files / "PATH")}
            # The stand-in of `run` knows this name; the gate's step has it for its limit.
            | ({} if "SLOWER" in variables else {"SLOWER": str(slower)})
            | variables,
            check=False,
        )
        status = status or ended.returncode
    assert cache is not None
    if not status:
        cache.end_job()
    return Job(status, (files / "STEP_SUMMARY").read_text(), (files / "OUTPUT").read_text())


def test_a_gate_passes_on_equal_code_and_fails_on_slower_code(tmp_path: Path) -> None:
    first = run_action(tmp_path, 1)
    assert first.status == 0
    assert "no baseline yet" in first.summary
    assert re.fullmatch(r"name=[\w.-]+\nstatus=0\n", first.outputs)
    assert run_action(tmp_path, 2, slower=1.1).status == 2  # what is allowed: no runs can tell
    assert run_action(tmp_path, 3, slower=1.1, fail_if_unclear="false").status == 0
    slower = run_action(tmp_path, 4, slower=1.25, fail_if_unclear="false")
    assert slower.status == 1
    assert "| regression |" in slower.summary
    assert run_action(tmp_path, 5, slower=1.25, fail_if_slower="50%").status == 0
    failed = run_action(tmp_path, 6, options="--failing 2")
    assert failed.status == 1
    assert "2 of 5 not completed in one go" in failed.summary
    equal = run_action(tmp_path, 7)
    assert equal.status == 0, equal.summary  # none of the others has become the baseline


def test_a_new_name_begins_a_new_baseline_and_no_verdict_of_an_earlier_job_is_shown(
    tmp_path: Path,
) -> None:
    """The job's folder is kept by the runner, as on a machine of one's own."""
    assert run_action(tmp_path, 1).status == 0
    renewed = run_action(tmp_path, 2, slower=1.25, baseline="2")
    assert renewed.status == 0
    assert "no baseline yet" in renewed.summary
    refused = run_action(tmp_path, 3, options="--no-such-option 1")
    assert refused.status == 2
    assert refused.summary == ""


def test_runs_that_broke_never_become_the_baseline(tmp_path: Path) -> None:
    """Nor do they pass where what is unclear is accepted."""
    broken = run_action(tmp_path, 1, options="--failing 5", fail_if_unclear="false")
    assert broken.status == 1
    assert "5 of 5 not completed in one go" in broken.summary
    assert not (tmp_path / "work" / "mnist-bench-baseline").exists()
    disturbed = run_action(tmp_path, 2, options="--busy 5", fail_if_unclear="false")
    assert disturbed.status == 0
    assert "other work disturbed 5 of 5 runs" in disturbed.summary
    assert not (tmp_path / "work" / "mnist-bench-baseline").exists()
    assert run_action(tmp_path, 3).status == 0
    assert (tmp_path / "work" / "mnist-bench-baseline").is_dir()
    assert run_action(tmp_path, 4, options="--failing 5", fail_if_unclear="false").status == 1


def test_a_pull_request_never_becomes_the_baseline(tmp_path: Path) -> None:
    assert run_action(tmp_path, 1, is_main=False).status == 0
    assert not (tmp_path / "work" / "mnist-bench-baseline").exists()


def test_the_page_has_every_input_with_its_default() -> None:
    page = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
    for name, values in ACTION["inputs"].items():
        cell = f" {values['default']}".rstrip()
        assert f"| `{name}` |{cell} |" in page


def test_inputs_reach_a_shell_as_variables_only() -> None:
    """An expression in a script would let an input become code."""
    for step in STEPS:
        assert "${{" not in step.get("run", "")
    used = set(re.findall(r"inputs\.([\w-]+)", yaml.dump(ACTION)))
    assert used == ACTION["inputs"].keys()
    assert all(values["description"] for values in ACTION["inputs"].values())


def test_the_cache_keeps_a_baseline_for_each_machine() -> None:
    (cache,) = (step for step in STEPS if str(step.get("uses", "")).startswith("actions/cache@"))
    assert cache["with"]["path"] == "mnist-bench-baseline"
    assert "steps.machine.outputs.name" in cache["with"]["key"]
    assert "inputs.baseline" in cache["with"]["key"]
