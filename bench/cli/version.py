"""`mnist-bench --version`: which code this is, in one line."""

from __future__ import annotations

import typer

_SHOWN_DIGITS = 12
"""Digits of a commit's name that are shown."""


def print_version(asked: bool) -> None:
    """Print the name, the version and, in a checkout, the commit; then end the command.

    Raises:
        typer.Exit: it was asked for.
    """
    if not asked:
        return
    print(describe_version())
    raise typer.Exit


def describe_version() -> str:
    """``"mnist-bench 0.1.0, commit 0123456789ab with uncommitted changes"``."""
    # Lazy: every command line imports this module, and few ask for the version.
    from bench.machine.package import package_version
    from bench.machine.repository import NO_CHECKOUT, PROJECT, code_state
    from bench.records.machine import PACKAGE

    line = f"{PACKAGE} {package_version() or 'of unknown version'}"
    code = code_state(PROJECT)
    if code.commit is not None:
        line += f", commit {code.commit[:_SHOWN_DIGITS]}"
    elif code.unknown_reason != NO_CHECKOUT:
        line += f", commit unknown: {code.unknown_reason}"
    return f"{line} with uncommitted changes" if code.dirty else line
