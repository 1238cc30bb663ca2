"""The commands of `mnist-bench`, put together."""

from __future__ import annotations

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
