"""`scripts/compatibility`: the unit tests with another Python, or with the oldest packages."""

from __future__ import annotations

import pytest

from tests.project.script_project import Project

FAKE_VENV = """
if [ "$1" = venv ]; then
    for folder; do :; done
    mkdir -p "$folder/bin"
    printf '#!/bin/sh\\nprintf "%%s\\\\n" "$@"\\nexit 3\\n' >"$folder/bin/python"
    chmod +x "$folder/bin/python"
fi
"""


@pytest.fixture
def compatible(project: Project) -> Project:
    """A uv that makes environments whose Python prints its arguments and fails."""
    with (project.log.parent / "uv").open("a") as uv:
        uv.write(FAKE_VENV)
    return project


@pytest.mark.parametrize(
    ("options", "packages", "warnings"),
    [
        ([], "--require-hashes --requirement requirements.txt", []),
        (
            ["--lowest"],
            "--resolution lowest-direct --requirement pyproject.toml --extra test",
            ["-W", "default"],
        ),
    ],
)
def test_the_unit_tests_run_in_an_environment_of_their_own(
    compatible: Project, options: list[str], packages: str, warnings: list[str]
) -> None:
    status, out, err = compatible.run("scripts/compatibility", "3.12", *options, "-k", "one two")
    assert (status, err) == (3, "")  # pytest's own
    assert out.splitlines() == ["-m", "pytest", *warnings, "-k", "one two"]
    asked, venv, install, own = (
        line for line in compatible.uv_commands() if not line.startswith("index")
    )
    assert asked == "--version"
    assert "--python 3.12" in venv
    assert install.endswith(packages)
    assert own.endswith("--no-deps --editable .")
    assert list((compatible.folder / ".cache").iterdir()) == []
    assert not (compatible.folder / ".venv").exists()


@pytest.mark.parametrize("words", [[], ["--lowest"]])
def test_a_missing_python_for_the_tests_is_one_line(project: Project, words: list[str]) -> None:
    status, out, err = project.run("scripts/compatibility", *words)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "name a Python" in err
