"""The scripts, on a copy of the project in a folder with a space in its name.

A fake uv replaces the real one, so these tests cover only what the scripts decide. The slow tests
use the real programs.
"""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.project.script_project import Project

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = tuple(
    f"scripts/{name}"
    for name in (
        "bench",
        "check-results",
        "compatibility",
        "faults",
        "fuzz",
        "lock",
        "setup",
        "site",
        "test",
        "wheels",
    )
)
LAUNCHERS = [
    f"scripts/launch/{p.name}" for p in sorted((ROOT / "scripts/launch").iterdir()) if not p.suffix
]


# The files


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_are_posix_shell_and_can_be_run(script: str) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    assert path.read_text().startswith("#!/bin/sh\n# ")
    subprocess.run(["sh", "-n", path], check=True)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="no shellcheck")
@pytest.mark.parametrize("script", [*SCRIPTS, *LAUNCHERS, "scripts/gpu", ".ci/run"])
def test_shellcheck_finds_nothing(script: str) -> None:
    completed = subprocess.run(
        ["shellcheck", ROOT / script], capture_output=True, text=True, check=False
    )
    assert completed.stdout == ""


@pytest.mark.parametrize("word", ["-h", "--help"])
@pytest.mark.parametrize("script", [*SCRIPTS, *LAUNCHERS])
def test_help_installs_nothing(script: str, word: str, project: Project) -> None:
    status, out, err = project.run(script, word)
    assert (status, err) == (0, "")
    comment = (ROOT / script).read_text().splitlines()[1].removeprefix("# ")
    assert out.splitlines()[0] == comment
    assert "set -eu" not in out
    assert "\nSBATCH" not in out
    assert not (project.folder / ".venv").exists()
    assert not project.log.exists()


@pytest.mark.parametrize("word", ["-h", "--help"])
def test_help_of_the_gpus_script_measures_nothing(word: str, project: Project) -> None:
    """Its steps are those of a Python program, which says them itself."""
    status, out, err = project.run("scripts/gpu", word)
    assert (status, err) == (0, "")
    assert "scripts/gpu" in out
    assert "DATA_FOLDER" in out
    assert not (project.folder / ".venv").exists()
    assert not (project.folder / "scratch").exists()


# Set-up


@pytest.mark.slow
def test_setup_installs_the_pinned_packages_then_the_project(project: Project) -> None:
    status, out, err = project.run("scripts/setup")
    assert (status, out) == (0, "")
    assert len(err.splitlines()) == 1
    assert (project.folder / ".venv" / "bin" / "python").exists()
    sync, _, install, _ = project.uv_commands()
    assert re.fullmatch(
        r"pip sync --python \.venv/bin/python .*--require-hashes requirements.txt", sync
    )
    assert install.endswith("--no-deps --no-build-isolation -e .")


@pytest.mark.slow
def test_a_second_set_up_does_nothing(project: Project) -> None:
    project.run("scripts/setup")
    project.uv_commands()
    assert project.run("scripts/setup") == (0, "", "")
    assert project.uv_commands() == []


def test_setup_tries_ziglang_where_no_compiler_has_made_the_library(project: Project) -> None:
    native = project.folder / "mnist_cnn/kernels/native"
    (native / "libnative.so").unlink(missing_ok=True)
    (native / "libnative.txt").write_text("no C++ compiler\n")  # as the build leaves it
    status, _, err = project.run("scripts/setup", CXX="no-such-compiler")
    assert status == 0
    assert [line for line in err.splitlines() if "no C++ compiler" in line] == [
        "set-up: no compiled training step: no C++ compiler; trying the compiler of the ziglang "
        "package (100 MB)",
        "set-up: no compiled training step: no C++ compiler; PyTorch's operators are used, which "
        "are slower",
    ]
    commands = [line for line in project.uv_commands() if not line.startswith("index")]
    _, install, ziglang, again = commands
    assert ziglang.endswith("--require-hashes -r requirements-zig.txt")
    assert again == install.replace("-e .", "--reinstall -e .")
    assert project.run("scripts/setup", CXX="no-such-compiler") == (0, "", "")


@pytest.mark.slow
def test_a_set_up_without_ziglang_is_complete(project: Project) -> None:
    (project.folder / "mnist_cnn/kernels/native/libnative.so").unlink(missing_ok=True)
    status, _, err = project.run("scripts/setup", UV_HAS_NO_ZIGLANG="1")
    assert status == 0
    assert "PyTorch's operators are used" in err.splitlines()[-1]
    assert project.run("scripts/setup", UV_HAS_NO_ZIGLANG="1") == (0, "", "")


@pytest.mark.slow
def test_a_compiler_that_is_installed_later_is_used(project: Project) -> None:
    project.run("scripts/setup", CXX="no-such-compiler")
    project.uv_commands()
    assert project.run("scripts/setup", CXX="cat")[0] == 0
    assert project.uv_commands()


@pytest.mark.slow
@pytest.mark.parametrize(
    "changed", ["requirements.txt", "pyproject.toml", "mnist_cnn/kernels/native/network.cpp"]
)
def test_changed_requirements_are_installed(project: Project, changed: str) -> None:
    project.run("scripts/setup")
    project.uv_commands()
    with (project.folder / changed).open("a") as file:
        file.write("\n# more\n")
    assert project.run("scripts/setup")[0] == 0
    assert project.uv_commands() != []


@pytest.mark.slow
def test_a_failed_set_up_prints_one_line_and_can_be_repeated(project: Project) -> None:
    status, out, err = project.run("scripts/setup", UV_FAILS="1")
    assert (status, out) == (2, "")
    assert "run this again" in err.splitlines()[-1]
    project.uv_commands()
    assert project.run("scripts/setup")[0] == 0
    assert len(project.uv_commands()) == 4


@pytest.mark.slow
def test_a_moved_environment_is_made_again(project: Project) -> None:
    project.run("scripts/setup")
    (project.folder / ".venv" / "old").touch()
    project.folder = project.folder.rename(project.folder.with_name("moved"))
    assert project.run("scripts/setup")[0] == 0
    assert not (project.folder / ".venv" / "old").exists()


@pytest.mark.slow
def test_an_environment_without_its_python_is_made_again(project: Project) -> None:
    project.run("scripts/setup")
    python = project.folder / ".venv" / "bin" / "python"
    python.unlink()
    python.symlink_to("/nonexistent/python")
    assert project.run("scripts/setup")[0] == 0
    assert python.exists()


@pytest.mark.slow
def test_two_set_ups_at_once_run_one_after_the_other(project: Project) -> None:
    both = [project.start("scripts/setup", UV_SLOW="1") for _ in range(2)]

    def listen(process: subprocess.Popen[str]) -> str:
        """What it says; once it waits for the other, that one may go on."""
        assert process.stderr is not None
        lines = []
        for line in process.stderr:
            lines.append(line)
            if "waiting" in line:
                project.log.with_name(f"{project.log.name}.go-on").touch()
        return "".join(lines)

    with ThreadPoolExecutor() as listeners:
        errors = list(listeners.map(listen, both))
    for process in both:
        with process:
            assert process.wait() == 0
    commands = project.uv_commands()
    assert "OVERLAP" not in commands
    assert sum(command.startswith("pip sync") for command in commands) == 1
    assert sum("waiting" in error for error in errors) == 1


@pytest.mark.parametrize("python", ["/nonexistent/python", "false"])
def test_a_missing_python_is_reported_in_one_line(project: Project, python: str) -> None:
    status, out, err = project.run("scripts/setup", PYTHON=python)
    assert (status, out) == (2, "")
    assert len(err.splitlines()) == 1
    assert "Python 3.11" in err


def test_pips_index_is_passed_to_uv(project: Project) -> None:
    project.run("scripts/setup", PIP_INDEX_URL="file:///mirror")
    assert "index file:///mirror" in project.uv_commands()


def test_uvs_own_index_has_priority(project: Project) -> None:
    project.run("scripts/setup", PIP_INDEX_URL="file:///a", UV_DEFAULT_INDEX="file:///b")
    assert "index file:///b" in project.uv_commands()


# bench and test


def test_bench_launches_run_with_the_given_options(project: Project) -> None:
    project.run("scripts/setup")
    project.replace_python()
    status, out, err = project.run("scripts/bench", "--label", "two words", "")
    assert (status, err) == (0, "")
    launcher, flag, config, run, *options = out.split("\n")[:-1]
    folder = project.folder
    assert Path(launcher) == folder / "scripts" / "accelerate_launch.py"
    assert (flag, Path(config)) == ("--config_file", folder / "scripts" / "accelerate.yaml")
    assert Path(run) == folder / "bench" / "run.py"
    assert options == ["--processes", "auto", "--label", "two words", ""]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "before"),
    [
        ({}, []),
        (
            {"CI": "true"},
            ["-m", "not thorough", "-n", "2", "--dist", "worksteal", "--durations=25"],
        ),
        ({"CI": "false"}, []),
    ],
)
def test_test_runs_pytest_and_in_ci_also_the_slow_tests(
    project: Project, environment: dict[str, str], before: list[str]
) -> None:
    project.run("scripts/setup")
    project.replace_python()
    status, out, _ = project.run("scripts/test", "-k", "one two", **environment)
    assert status == 0
    assert out.split("\n")[:-1] == ["-m", "pytest", *before, "-k", "one two"]
    _, out, _ = project.run("scripts/test", **environment)
    alone = before or ["-n", "2", "--dist", "worksteal"]
    assert out.split("\n")[:-1] == ["-m", "pytest", *alone]
    _, out, _ = project.run("scripts/test", "--thorough", "-x", **environment)
    assert out.split()[2:4] == ["-m", "thorough"]
    assert out.split()[-2:] == ["--durations=25", "-x"]


@pytest.mark.slow
def test_nothing_runs_if_setup_fails(project: Project) -> None:
    for script in ("scripts/bench", "scripts/test"):
        status, out, _ = project.run(script, UV_FAILS="1")
        assert (status, out) == (2, "")


# With the real programs


@pytest.mark.thorough
def test_setup_downloads_uv_and_a_compiler_if_there_are_none(project: Project) -> None:
    lock = project.folder / "requirements.txt"
    names = "hatchling|editables|packaging|pathspec|pluggy|trove-classifiers"
    blocks = re.findall(rf"^(?:{names})==.*\n(?:    --hash=.*\n)+", lock.read_text(), re.MULTILINE)
    lock.write_text("".join(blocks))
    for name in ("README.md", "LICENSE"):
        (project.folder / name).touch()
    for package in ("bench", "mnist_cnn"):
        (project.folder / package).mkdir(exist_ok=True)
        (project.folder / package / "__init__.py").touch()
    native = project.folder / "mnist_cnn/kernels/native"
    for source in (*native.glob("*.[ch]pp"), native / "libnative.so"):
        source.unlink()
    (native / "answer.cpp").write_text('extern "C" int answer() { return 42; }\n')
    # A PATH with everything the script needs, except uv and a compiler.
    tools = project.folder / "bin"
    tools.mkdir()
    for tool in ("cat", "cksum", "dirname", "head", "mv", "rm", "sh", "uname"):
        path = shutil.which(tool)
        assert path is not None
        (tools / tool).symlink_to(path)
    # ziglang compiles its C++ library once for all tests.
    environment = {"PATH": str(tools), "ZIG_GLOBAL_CACHE_DIR": str(Path.home() / ".cache/zig")}
    environment["CXX"] = ""
    status, _, err = project.run("scripts/setup", **environment)
    if re.search(r"Could not find a version|Connection|Temporary failure|timed out", err):
        pytest.skip(f"no package index: {err.splitlines()[-1]}")
    assert status == 0, err
    assert (project.folder / ".venv" / "uv" / "bin" / "uv").exists()
    python = project.folder / ".venv" / "bin" / "python"
    printed = subprocess.run(
        [python, "-c", "import bench; print(bench.__file__)"],
        capture_output=True,
        text=True,
        check=True,
        cwd="/",
    )
    assert Path(printed.stdout.strip()).parent == project.folder / "bench"
    assert ctypes.CDLL(str(native / "libnative.so")).answer() == 42
    assert project.run("scripts/setup", **environment) == (0, "", "")
