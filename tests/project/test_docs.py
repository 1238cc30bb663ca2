"""The documents are true: commands and links exist, and the table follows from records.

`tests/verify/test_pages.py` recomputes single numbers.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from bench.report.results_block import END, START

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [
    *("README.md", "CONTRIBUTING.md", "results/README.md"),
    *sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md")),
]
BIN = Path(sys.executable).parent


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def commands(name: str) -> list[str]:
    """The lines of a document's shell blocks, without comments."""
    blocks = re.findall(r"```sh\n(.*?)```", read(name), re.DOTALL)
    lines = (line.split("  #")[0].strip() for block in blocks for line in block.splitlines())
    return [line for line in lines if line]  # a block within a list ends with spaces


@cache
def help_of(*command: str) -> str:
    environment = os.environ | {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "COLUMNS": "200"}
    completed = subprocess.run(
        [*command, "--help"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True
    )
    return completed.stdout


@pytest.mark.slow
@pytest.mark.parametrize("line", [line for name in DOCUMENTS for line in commands(name)])
def test_every_command_exists_with_its_options(line: str) -> None:
    """The tests in tests/cli run the commands themselves."""
    words = [word for word in shlex.split(line) if "=" not in word.split("/")[0]]
    match words:
        case ["mnist-bench", command, *options]:
            text = help_of(str(BIN / "mnist-bench"), command)
            if command in ("ab", "sweep"):  # these pass unknown options on to `run`
                text += help_of(str(BIN / "mnist-bench"), "run")
        case ["python", "-m", "mnist_cnn", command, *options]:
            text = help_of(sys.executable, "-m", "mnist_cnn", command)
        case ["torchrun", "--standalone", "--nproc_per_node", "2", "bench/run.py"]:
            return  # tests/cli/test_run.py starts it
        case [("python" | ".venv/bin/python"), script, *options] if script.endswith(".py"):
            text = help_of(sys.executable, script)
            command = script
        case ["pip", "install", *_] if words[-1] == ".":
            return  # scripts/wheels installs its wheels, tests/project/test_wheels.py runs it
        case ["pytest", "tests/benchmarks", *options]:
            return  # tests/project/test_benchmark_suite.py runs it
        case ["python", "-m", "mlperf_logging.compliance_checker", *_] | [
            "pytest-benchmark" | "sed",
            *_,
        ]:
            return  # tests/report/test_formats.py runs all of docs/interop.md
        case ["./scripts/check-results", "origin/main"]:
            return  # tests/project/test_check_results.py runs it
        case [script, *_] if script.startswith("./scripts/"):
            assert os.access(ROOT / script, os.X_OK)
            return
        case [("git" | "echo" | "mkdir" | "mv" | "."), *_]:
            return  # of tutorials, which tests/project/test_tutorials.py follows
        case _:
            pytest.fail(f"no test knows this command: {line}")
    for option in options:
        if re.fullmatch(r"--\S+", option):
            assert re.search(rf"{option}\b", text), f"{option} is not an option of {command}"


@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_link_has_a_target(name: str) -> None:
    for target, _, anchor in re.findall(r"\]\(([^)#\s]*)(#([^)]+))?\)", read(name)):
        if target.startswith("https://"):
            continue
        path = (ROOT / name).parent / target if target else ROOT / name
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in anchors, f"{target}#{anchor}"


def test_the_readme_has_a_place_for_the_table_of_results() -> None:
    """`mnist-bench publish --check`, a step of CI, holds the table to the records."""
    assert END in read("README.md").partition(START)[2]


def test_nothing_names_a_package_registry_or_this_machine() -> None:
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    if not listed:
        pytest.skip("not a git checkout")
    hosts = ["py" + "pi.org", "python" + "hosted", "registry.npm" + "js"]
    for name in listed:
        text = (ROOT / name).read_text(encoding="utf-8", errors="replace")
        for forbidden in (*hosts, f"{ROOT}/"):
            assert forbidden not in text, f"{name} names {forbidden}"
