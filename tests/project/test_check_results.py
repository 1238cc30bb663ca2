"""`scripts/check-results`, as the workflow for contributed results runs it, in a clone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.commands import ROOT, launch

pytestmark = pytest.mark.slow

SCRIPT = "scripts/check-results"
MACHINE = "results/amd-epyc-2-cores-zen3-7d5690"


def git(project: Path, *words: str) -> str:
    identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false")
    return subprocess.run(
        ["git", *identity, *words], cwd=project, capture_output=True, text=True, check=True
    ).stdout.strip()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A clone whose set-up is done: its commands are those of this environment."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    project = tmp_path / "a clone"
    subprocess.run(["git", "clone", "-q", "--shared", str(ROOT), str(project)], check=True)
    shutil.copy(ROOT / SCRIPT, project / SCRIPT)
    command = project / ".venv" / "bin" / "mnist-bench"
    command.parent.mkdir(parents=True)
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m bench "$@"\n')
    (project / "scripts" / "setup").write_text("#!/bin/sh\n")
    for file in (command, project / "scripts" / "setup"):
        file.chmod(0o755)
    return project


def test_results_that_are_as_they_were_measured_pass(project: Path) -> None:
    """A pull request that adds the machine, made of the commits that did."""
    added = git(project, "log", "--format=%H", "--diff-filter=A", "--", MACHINE).splitlines()
    done = launch([project / SCRIPT, f"{added[-1]}~1"], project)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"\n{MACHINE}\n" in done.stdout


def test_an_edited_record_fails(project: Path) -> None:
    base = git(project, "rev-parse", "HEAD")
    record = next((project / MACHINE).glob("*.json"))
    content = json.loads(record.read_text())
    record.write_text(json.dumps(content | {"seed": content["seed"] + 100}, indent=2))
    git(project, "commit", "-qam", "A better seed")
    done = launch([project / SCRIPT, base], project)
    assert done.returncode == 1
    assert f"\n{MACHINE}\n" in done.stdout
    assert "fail" in done.stdout


def test_a_folder_that_is_not_committed_yet_is_checked(project: Path) -> None:
    new = project / "results" / "new"
    new.mkdir()
    (new / "20261129T000000Z-fast-00000000.json").write_text("{}")
    done = launch([project / SCRIPT, "HEAD"], project)
    assert done.returncode == 1
    assert "\nresults/new\n" in done.stdout


def test_records_must_lie_in_a_machines_folder_and_stay(project: Path) -> None:
    base = git(project, "rev-parse", "HEAD")
    git(project, "mv", f"{MACHINE}/{next((project / MACHINE).glob('*.json')).name}", "results")
    git(project, "rm", "-rq", MACHINE)
    git(project, "commit", "-qm", "Moved")
    done = launch([project / SCRIPT, base], project)
    assert done.returncode == 1
    assert "fail: these are in no machine's folder" in done.stdout
    assert f"\n{MACHINE}\nfail: this branch removes it\n" in done.stdout


def test_a_name_that_would_escape_the_check_is_refused(project: Path) -> None:
    base = git(project, "rev-parse", "HEAD")
    folder = project / "results" / 'a "machine"'
    folder.mkdir()
    (folder / "record.json").write_text("{}")
    git(project, "add", "results")
    git(project, "commit", "-qm", "A machine")
    done = launch([project / SCRIPT, base], project)
    assert done.returncode == 2
    assert "has a quote or a control character" in done.stderr


def test_without_results_only_the_pages_are_checked(project: Path) -> None:
    done = launch([project / SCRIPT, "HEAD"], project)
    assert done.returncode == 0, done.stderr
    assert "no machine's results differ" in done.stdout


def test_a_branch_without_that_commit_is_told(project: Path) -> None:
    done = launch([project / SCRIPT, "no-such-branch"], project)
    assert done.returncode == 2
    assert "no-such-branch is no commit" in done.stderr
