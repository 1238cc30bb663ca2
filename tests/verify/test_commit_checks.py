"""What a record's commit says of the network, asked of a repository made for this."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bench.machine.repository import asserted_parameters, read_history
from bench.verify import checks, commit_checks
from bench.verify.check_list import CHECKS
from mnist_cnn import model
from tests.factories import make_record, saved


def git(project: Path, *words: str) -> str:
    identity = ["-c", "user.name=a", "-c", "user.email=a@example.org"]
    return subprocess.run(
        ["git", *identity, *words], cwd=project, check=True, capture_output=True, text=True
    ).stdout.strip()


MODEL = "PARAMETERS = {}\n\ndef build():\n    assert count() == PARAMETERS < 20_000\n"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A repository whose network grew, lost its number, and lost the assertion."""
    project = tmp_path / "project"
    (project / "mnist_cnn").mkdir(parents=True)
    git(project, "init", "-q")
    for source in (
        MODEL.format("17_506"),
        MODEL.format("20_000"),
        MODEL.format("count()"),
        "PARAMETERS = 17_506\n",
    ):
        (project / "mnist_cnn" / "model.py").write_text(source)
        git(project, "add", ".")
        git(project, "commit", "-qm", "a network")
    return project


@pytest.mark.parametrize(
    ("back", "says"),
    [
        (3, None),
        (2, "has 20,000 parameters"),
        (1, "asserts no number of parameters"),
        (0, "asserts no number of parameters"),
    ],
)
def test_the_commit_s_own_code_says_how_many_parameters(
    tmp_path: Path, project: Path, back: int, says: str | None
) -> None:
    commit = git(project, "rev-parse", f"HEAD~{back}")
    run = make_record(environment={"commit": commit})
    folder = checks.read_folder(
        Path(saved(tmp_path / "records", [run])), read_history(project), frozenset()
    )
    found = {r.check.name: [f.text for f in r.findings] for r in checks.run_checks(folder, CHECKS)}
    assert found["commit"] == []
    assert bool(found["parameters"]) == bool(says)
    assert says is None or says in found["parameters"][0]


def test_a_shallow_clone_does_not_know(tmp_path: Path, project: Path) -> None:
    git(tmp_path, "clone", "-q", "--depth", "1", project.as_uri(), "shallow")
    old = git(project, "rev-parse", "HEAD~3")
    run = make_record(environment={"commit": old})
    folder = checks.read_folder(
        Path(saved(tmp_path / "records", [run])), read_history(tmp_path / "shallow"), frozenset()
    )
    results = {result.check.name: result for result in checks.run_checks(folder, CHECKS)}
    assert results["commit"].outcome is checks.CheckOutcome.UNKNOWN
    assert "git fetch --unshallow" in results["commit"].findings[0].text


def test_a_commit_of_nobody_s_is_not_asked_for(project: Path) -> None:
    assert read_history(project).parameters("--output=x") is None
    assert asserted_parameters("PARAMETERS = (\n") is None
    assert commit_checks.PARAMETER_LIMIT == model.PARAMETER_LIMIT
