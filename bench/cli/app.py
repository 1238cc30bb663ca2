"""The commands of `mnist-bench`, put together."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from bench.cli.version import print_version
from mnist_cnn.help import HELP_NAMES, HelpfulCommand, examples

COMMANDS = {
    "run": "Train N times from random weights and report the time to 99.4 %.",
    "report": "Show results from disk, or write them for another tool.",
    "compare": "Compare NEW with BASE: time, accuracy and learning curve.",
    "publish": "Regenerate the results page from its records, or check it.",
    "verify": "Check records, your own or contributed ones, or numbers in pages.",
    "env": "Print what this machine is, and what a run would choose on it.",
    "data": "Download MNIST where it is missing, and verify every byte of it.",
    "ab": "Run A and B in turn and compare them.",
    "sweep": "Run all combinations of the given values, in random order.",
}
"""Each is a module of this package with a function of its own name, whose help begins so."""
_COMPLETING = "_MNIST_BENCH_COMPLETE"
"""Variable by which a shell asks for completions; its words are not those of the command line."""
_PASS_ON = {"allow_extra_args": True, "ignore_unknown_options": True}
_SETTINGS: dict[str, dict[str, Any]] = {
    # These two pass unknown options on to `run`.
    "ab": {"context_settings": _PASS_ON},
    "sweep": {"context_settings": _PASS_ON, "options_metavar": "[MATRIX.toml] [OPTIONS]"},
}


def make_app(words: Sequence[str]) -> typer.Typer:
    """The program, with what a command line needs.

    A command's module has its EXAMPLES.

    Args:
        words: the command line. Only the command that it begins with is imported. Without one, none
            is: their names and summaries do for the list of commands and for a misspelled one.
    """
    app = typer.Typer(
        name="mnist-bench",
        help="How long does this machine take to train MNIST to 99.4 % with under 20,000 "
        "parameters?",
        epilog="Start with `mnist-bench run`: three runs, a table and their records, within "
        "minutes. Each command's --help has examples.",
        context_settings=HELP_NAMES,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
    app.callback()(_before_any_command)
    first = next((word for word in words if word != "--"), "")
    is_named = first in COMMANDS
    for name in [first] if is_named else COMMANDS:
        if is_named or _COMPLETING in os.environ:
            _add_command(app, name)
        else:
            app.command(name, help=COMMANDS[name])(_not_called)
    return app


def _add_command(app: typer.Typer, name: str) -> None:
    module = import_module(f"bench.cli.{name}")
    command: Callable[..., Any] = getattr(module, name)
    settings = _SETTINGS.get(name, {})
    app.command(cls=HelpfulCommand, epilog=examples(module.EXAMPLES), **settings)(command)


def check_run_options(words: Sequence[str]) -> None:
    """Refuse options that `run` does not have, before other processes are started with them.

    Args:
        words: options of `run`.

    Raises:
        typer.BadParameter: and the like, as for `run` itself.
    """
    app = typer.Typer(rich_markup_mode=None, add_completion=False)
    _add_command(app, "run")
    typer.main.get_command(app).make_context("run", list(words))


def _not_called() -> None:
    """Stands for a command that the command line does not name.

    Raises:
        RuntimeError: always.
    """
    raise RuntimeError("the command was not imported")


def _before_any_command(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and exit.",
            callback=print_version,
            is_eager=True,
        ),
    ] = False,
) -> None:
    """Holds the options that need no command."""
