"""The commands of `mnist-bench`, put together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Annotated, Any

import typer

from bench.cli.version import print_version
from mnist_cnn.help import HELP_NAMES, HelpfulCommand, examples

COMMANDS = ("run", "report", "compare", "publish", "verify", "env", "data", "ab", "sweep")
"""Each is a module of this package with a function of its own name; in the order of the help."""
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
        words: the command line. If it begins with a command, no other one is imported: a third of
            the time until a command begins.
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
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        module = import_module(f"bench.cli.{name}")
        command: Callable[..., Any] = getattr(module, name)
        settings = _SETTINGS.get(name, {})
        app.command(cls=HelpfulCommand, epilog=examples(module.EXAMPLES), **settings)(command)
    return app


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
