"""The workflow of docs/ci.md, executed: its steps, its conditions, its exit codes, its summary.

`mnist-bench` is the real one but for `run`, which makes simulated records at once; it is where the
set-up installs it, and nowhere else on the PATH. The folder stands for a runner that keeps what git
ignores, and `baseline` as the cache does, between two jobs.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from bench.analysis.gate import GateOutcome, Limits
from tests.analysis.gate_simulation import Truth, outcomes
from tests.project.simulated_runs import SimulatedCache, install_stand_in, search_path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "ci.md"


@dataclass(frozen=True, slots=True)
class Job:
    """What came of the workflow's job."""

    status: int
    """Exit status of the first step that failed; 0 where none did."""
    summary: str
    """What the job's page shows."""


def workflow_steps() -> list[dict[str, Any]]:
    block, _ = re.findall(r"```yaml\n(.*?)```", DOCUMENT.read_text(encoding="utf-8"), re.DOTALL)
    document: dict[str, Any] = yaml.safe_load(block)
    (job,) = document["jobs"].values()
    steps: list[dict[str, Any]] = job["steps"]
    return steps


def run_job(
    runner: Path,
    number: int,
    slower: float = 1.0,
    allowed: str = "10%",
    summary_file: str = "gate.md",
    options: str = "",
    **variables: str,
) -> Job:
    """One push to the main branch: every step whose condition holds."""
    install_stand_in(runner)
    summary, added = runner / f"summary-{number}.md", runner / f"path-{number}"
    outputs = runner / f"output-{number}"
    added.touch()
    environment = {
        **os.environ,
        "GITHUB_OUTPUT": str(outputs),
        "GITHUB_PATH": str(added),
        "GITHUB_STEP_SUMMARY": str(summary),
        "NUMBER": str(number),
        "SLOWER": str(slower),
        **variables,
    }
    status, cache = 0, None
    for step in workflow_steps():
        if status and step.get("if") != "always()":
            continue
        if "uses" in step:
            if "with" in step:
                path, machine = runner / step["with"]["path"], outputs.read_text().strip()
                assert re.fullmatch(r"name=[\w.-]+", machine)
                key = step["with"]["key"]
                expression = "${{ steps.machine.outputs.name }}"
                assert expression in key
                key = key.replace(expression, machine.removeprefix("name="))
                cache = SimulatedCache(runner / "cache", key, path)
            continue
        assert step.get("if") in (None, "always()", "github.ref == 'refs/heads/main'")
        script = step["run"].replace("--fail-if-slower 10%", f"--fail-if-slower {allowed}")
        script = script.replace("--summary gate.md", f"--summary {summary_file}")
        script = script.replace("--results-dir new", f"--results-dir new {options}")
        ended = subprocess.run(
            ["bash", "-e", "-c", script],
            cwd=runner,
            env=environment | {"PATH": search_path(added)},
            check=False,
        )
        status = status or ended.returncode
    assert cache is not None
    if not status:
        cache.end_job()
    return Job(status, summary.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_the_workflow_on_its_first_run_then_on_equal_code_then_on_slower_code(
    tmp_path: Path,
) -> None:
    first = run_job(tmp_path, 1)
    assert first.status == 0
    assert "| pass | `no baseline yet: nothing is called baseline" in first.summary
    assert (tmp_path / "baseline").is_dir()
    equal = run_job(tmp_path, 2)
    assert equal.status == 0, equal.summary
    assert "trainings are identical, seed by seed" in equal.summary
    assert "share reached: 3 of 5 and 3 of 5 runs, the same seeds" in equal.summary
    slower = run_job(tmp_path, 3, slower=1.25)
    assert slower.status == 1, slower.summary
    assert "| regression |" in slower.summary
    # A tenth is exactly what is allowed: no number of runs tells it from the limit.
    at_the_limit = run_job(tmp_path, 4, slower=1.1)
    assert at_the_limit.status == 2
    assert (
        "runs per side would" in at_the_limit.summary or "more runs would" in at_the_limit.summary
    )
    assert run_job(tmp_path, 5, slower=1.1, allowed="5%").status == 1
    other_machine = run_job(tmp_path, 6, CPU="another processor")
    assert other_machine.status == 2
    assert "the base is of another machine" in other_machine.summary
    again = run_job(tmp_path, 7)  # neither of these has become the baseline
    assert again.status == 0, again.summary


@pytest.mark.slow
def test_exit_2_can_be_accepted_and_exit_1_cannot(tmp_path: Path) -> None:
    assert "with `|| [ $? = 2 ]`" in DOCUMENT.read_text(encoding="utf-8")
    accepted = "gate.md || [ $? = 2 ]"
    run_job(tmp_path, 1)
    assert run_job(tmp_path, 2, slower=1.1).status == 2
    assert run_job(tmp_path, 3, slower=1.1, summary_file=accepted).status == 0
    assert run_job(tmp_path, 4, slower=1.25, summary_file=accepted).status == 1


@pytest.mark.slow
def test_disturbed_runs_do_not_become_the_baseline(tmp_path: Path) -> None:
    accepted = "gate.md || [ $? = 2 ]"
    disturbed = run_job(tmp_path, 1, summary_file=accepted, options="--busy 5")
    assert disturbed.status == 0
    assert "other work disturbed 5 of 5 runs" in disturbed.summary
    assert not (tmp_path / "baseline").exists()
    assert run_job(tmp_path, 2).status == 0
    assert (tmp_path / "baseline").is_dir()


@pytest.mark.slow
def test_a_name_that_was_misspelled_is_no_first_run(tmp_path: Path) -> None:
    """Without --allow-no-baseline: exit 2, and the summary says why."""
    run_job(tmp_path, 1)
    command = (
        "mnist-bench compare baselin new --fail-if-slower 10% --fail-if-less-accurate 0.05 "
        "--summary typo.md"
    )
    programs = tmp_path / ".venv" / "bin"
    environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
    ended = subprocess.run(
        shlex.split(command), cwd=tmp_path, env=environment, check=False, capture_output=True
    )
    assert ended.returncode == 2
    assert "| unclear | `nothing was judged: 'baselin' is no file" in (
        tmp_path / "typo.md"
    ).read_text(encoding="utf-8")


def rate(counts: Counter[GateOutcome], outcome: GateOutcome) -> str:
    return f"{100 * counts[outcome] / counts.total():.0f}"


@pytest.mark.thorough
def test_the_table_of_how_many_runs_follows_from_simulation() -> None:
    lines = []
    for runs in (5, 10, 20, 40):
        cells = [
            rate(outcomes(truth, 500), outcome)
            for truth, outcome in (
                (Truth(runs=runs), GateOutcome.PASS),
                (Truth(runs=runs, rounding="other"), GateOutcome.PASS),
                (Truth(runs=runs, first_seed=None), GateOutcome.PASS),
                (Truth(runs=runs, slower=1.2), GateOutcome.REGRESSION),
            )
        ]
        lines.append(f"| {runs} | {' | '.join(cells)} |")
    document = DOCUMENT.read_text(encoding="utf-8")
    for line in lines:
        assert line in document, "\n".join(lines)
    assert Limits(0.10, 0.05) == Truth(runs=5).limits
