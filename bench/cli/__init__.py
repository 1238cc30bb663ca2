"""One file a command: parse the options into a value, call one function, print the result.

A command imports slow modules only when it is called: `mnist-bench report` must not wait for torch.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from bench.cli.ab import ab
from bench.cli.compare import compare
from bench.cli.data import data
from bench.cli.env import env
from bench.cli.publish import publish
from bench.cli.report import report
from bench.cli.run import run
from bench.cli.sweep import sweep
from bench.cli.verify import verify
from bench.cli.version import print_version
from mnist_cnn import console

app = typer.Typer(
    name="mnist-bench",
    help="How long does this machine take to train MNIST to 99.4 % with under 20,000 parameters?",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
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


for command in (run, report, compare, publish, verify, env, data):
    app.command()(command)
# These two pass unknown options on to `run`.
pass_on = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command(context_settings=pass_on)(ab)
app.command(context_settings=pass_on, options_metavar="[MATRIX.toml] [OPTIONS]")(sweep)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: the words after the program name; None to use those of this process.

    Returns:
        The exit status: 0 done, 1 a run, a save or a check failed, 2 bad input, 130 interrupted.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    return console.run(app, "mnist-bench", words or ["--help"])
