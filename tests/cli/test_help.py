"""What the commands say of themselves: headings, examples, names of registries, completion."""

from __future__ import annotations

import shlex
from typing import Any, get_args

import pytest
import typer

from bench.cli import app, main
from mnist_cnn import __main__ as workload
from mnist_cnn.help import one_of
from mnist_cnn.recipe import DEVICES, RECIPES, Kernels, Pipeline, Precision
from tests.commands import BIN, PYTHON, launch

WIDTH = 80
EXAMPLES = "Examples:\n"


@pytest.fixture(autouse=True)
def terminal_of_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(WIDTH))


def bench_help(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(list(words)) == 0
    return capsys.readouterr().out


def sections(text: str) -> dict[str, str]:
    """The text under each heading."""
    found: dict[str, str] = {}
    for paragraph in text.split("\n\n"):
        heading, colon, rest = paragraph.partition(":\n")
        if colon and not heading.startswith(" "):
            found[heading] = rest
    return found


def parse(program: typer.Typer, line: str, words: list[str]) -> Any:
    """The context of a command line of a program, as if it were about to be called."""
    group: Any = typer.main.get_command(program)
    outer = group.make_context(line, words[:1], obj=words, resilient_parsing=True)
    context = group.get_command(outer, words[0]).make_context(words[0], words[1:], parent=outer)
    assert not context.args  # `ab` and `sweep` would pass on an option that they do not know
    return context


@pytest.mark.parametrize("name", app.COMMANDS)
def test_examples_are_command_lines(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = bench_help(capsys, name, "--help")
    assert bench_help(capsys, name, "-h") == said
    assert all(len(line) <= WIDTH for line in said.splitlines())
    *_, shown = said.partition(EXAMPLES)
    lines = [line.strip() for line in shown.splitlines() if not line.strip().startswith("#")]
    assert len(lines) == 2
    for line in lines:
        program, *words = shlex.split(line)
        assert program == "mnist-bench"
        assert words[0] == name
        parse(app.make_app(words), program, words)


@pytest.mark.parametrize("name", ["train", "predict", "summary", "export"])
def test_examples_of_the_workload_are_too(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert workload.main([name, "-h"]) == 0
    said = capsys.readouterr().out
    assert all(len(line) <= WIDTH for line in said.splitlines())
    *_, shown = said.partition(EXAMPLES)
    lines = [line.strip() for line in shown.splitlines() if not line.strip().startswith("#")]
    assert len(lines) == 2
    for line in lines:
        assert line.startswith("python -m mnist_cnn ")
        words = shlex.split(line.partition(" > ")[0])[3:]
        assert words[0] == name
        parse(workload.app, "mnist_cnn", words)


def test_run_begins_with_the_options_that_most_people_need(
    capsys: pytest.CaptureFixture[str],
) -> None:
    by_heading = sections(bench_help(capsys, "run", "--help"))
    first, *others = list(by_heading)[:-1]
    assert first == "Options"
    assert by_heading[first].count("\n  -") == 10  # the help option is the eleventh
    assert all(1 <= f"\n{by_heading[one]}".count("\n  -") <= 6 for one in others)


def test_names_are_those_of_the_registries(capsys: pytest.CaptureFixture[str]) -> None:
    said = " ".join(bench_help(capsys, "run", "--help").split())
    for names in (RECIPES, DEVICES, *map(get_args, (Kernels, Pipeline, Precision))):
        for name in names:
            assert name in said.replace(",", " ").replace(".", " ").split()
    assert workload.main(["train", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    for names in (RECIPES, get_args(Pipeline)):
        assert f": {one_of(names)}" in said


@pytest.mark.parametrize("name", app.COMMANDS)
def test_the_list_says_what_the_command_says(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    summary = " ".join(bench_help(capsys, name, "--help").split("\n\n")[1].split())
    assert app.COMMANDS[name] == summary
    assert " ".join(bench_help(capsys).split()).count(summary) == 1


def test_the_list_of_commands_cuts_no_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    said = bench_help(capsys)
    assert "..." not in sections(said)["Commands"]
    assert "Start with `mnist-bench run`" in said
    assert workload.main([]) == 0
    assert "..." not in sections(capsys.readouterr().out)["Commands"]


@pytest.mark.parametrize("words", [["report"], ["--", "report"]])
def test_a_command_is_found_wherever_it_stands(
    words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*words, "nowhere"]) == 2
    assert "nowhere" in capsys.readouterr().err


def test_the_list_of_commands_waits_for_no_command() -> None:
    code = "import sys; from bench.cli import main; main([]); print(*sys.modules, sep='\\n')"
    imported = set(launch([PYTHON, "-c", code]).stdout.splitlines())
    assert "bench.cli.app" in imported
    assert not imported & {"pydantic", "numpy", "rich", "torch", "bench.cli.run"}


@pytest.mark.parametrize(
    ("begun", "offered"),
    [
        ("mnist-bench rep", ["report"]),
        ("mnist-bench run --res", ["--results-dir", "--resume"]),
        ("mnist-bench run --recipe ref", ["reference"]),
        ("mnist-bench run --kernels avx512-", ["avx512-bf16"]),
        ("mnist-bench report --to html", ["html"]),
    ],
)
def test_a_shell_can_complete(begun: str, offered: list[str]) -> None:
    words = begun.split()
    done = launch(
        [BIN / "mnist-bench"],
        _MNIST_BENCH_COMPLETE="complete_bash",
        COMP_WORDS=begun,
        COMP_CWORD=str(len(words) - 1),
    )
    assert done.stdout.split() == offered
    assert done.stderr == ""


@pytest.mark.parametrize(
    "words", [["--help"], ["run", "--help"], ["report", "results"]], ids=" ".join
)
def test_what_is_not_needed_is_not_imported(words: list[str]) -> None:
    """docs/installing.md says which package is loaded by what."""
    code = f"import sys; from bench.cli import main; main({words!r}); print(*sys.modules)"
    loaded = set(launch([PYTHON, "-c", code]).stdout.splitlines()[-1].split())
    assert "typer" in loaded
    heavy = {"torch", "pandas", "scipy", "matplotlib", "numpy", "PIL", "huggingface_hub", "pyarrow"}
    assert not loaded & heavy
