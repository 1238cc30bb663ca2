"""Runs this project's commands: every failure is one line on stderr, bad input exit status 2."""

from __future__ import annotations

import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import typer

from mnist_cnn.errors import (
    InterruptedTrainingError,
    UnwrittenCheckpointError,
    UsageError,
    advice_on,
    reason_of,
    shortage,
)
from mnist_cnn.escaping import printable, shortened
from mnist_cnn.failure import describe_error
from mnist_cnn.process import (
    EXIT_FAILED as EXIT_FAILED,
    EXIT_INTERRUPTED as EXIT_INTERRUPTED,
    EXIT_USAGE as EXIT_USAGE,
    asked_to_end,
    discard,
)
from mnist_cnn.rank import Rank, is_launched, prints_problems
from mnist_cnn.surroundings import settle_environment

# Since 0.26 Typer contains its own click, and exports only the subclasses of its exceptions.
_ClickException: type[Exception] = typer.BadParameter.mro()[2]

WORKLOAD = "mnist_cnn"
"""Name of the workload's command line in its messages."""
TRACEBACK_VARIABLE = "MNIST_BENCH_TRACEBACK"
"""Variable that has tracebacks printed, where it is set: for whoever looks for our mistake."""
_REFUSAL_SECONDS = 5.0
_LONGEST_MESSAGE = 2_000
"""Letters of a message: what it quotes may be of any length."""
_LAUNCH = {WORKLOAD: "torchrun", "mnist-bench": "mnist-bench run --processes N or torchrun"}
"""How several processes of each program are started."""


_output_errors: list[BaseException] = []
"""The last error of stdout."""


def run(
    app: typer.Typer, name: str, arguments: Sequence[str], *, says_interrupted: bool = True
) -> int:
    """Run a command line.

    Args:
        app: the commands.
        name: the program's name in its messages.
        arguments: without the program's name; commands find them in their context's `obj`.
        says_interrupted: whether an interruption is told here.

    Returns:
        The exit status: 2 for bad input, 130 when interrupted, 1 for an error that nothing
        expects, else the command's own.
    """
    # A file's name may contain what the terminal cannot show; that must not end a command.
    for stream in (sys.stdout, sys.stderr):
        getattr(stream, "reconfigure", lambda **_: None)(errors="backslashreplace")
    note_output_errors()
    command = typer.main.get_command(app)
    if f"_{name}_COMPLETE".replace("-", "_").upper() in os.environ:  # a shell asks; it ends here
        command.main(list(arguments), prog_name=name)
    arguments = without_separator(arguments)
    try:
        _check_current_folder()
        # The project's other programs, in scripts/, measure trainings too.
        words = arguments if name in _LAUNCH else ["run", *arguments]
        for notice in settle_environment(words, _LAUNCH.get(name, "torchrun")):
            if prints_problems():
                print(f"{name}: warning: {printable(notice)}", file=sys.stderr)
        # Not Typer's own `main`: it takes every broken pipe for that of the output.
        with command.make_context(name, list(arguments), obj=list(arguments)) as context:
            status = command.invoke(context)
        # Here, where a failure can still be told: the interpreter's own flush comes too late.
        sys.stdout.flush()
    except UsageError as error:
        return _refuse(name, str(error))
    except InterruptedTrainingError as error:
        complain(str(error))
        return EXIT_INTERRUPTED
    except UnwrittenCheckpointError as error:
        print(f"{name}: error: {printable(str(error))}", file=sys.stderr)
        return EXIT_FAILED
    except _ClickException as error:
        return _refuse(name, error.format_message())  # type: ignore[attr-defined]
    except OSError as error:
        # A name that no file can have, or a folder that may not be entered. Without a name, it is
        # about the output or the system, which is no fault of the command line.
        if error.filename is None:
            return fail(name, error)
        return _refuse(name, f"cannot use {os.fsdecode(error.filename)}: {reason_of(error)}")
    except (KeyboardInterrupt, typer.Abort):
        if says_interrupted and not is_launched():
            print(f"{name}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except typer.Exit as error:  # --help, --version
        status = error.exit_code
    except BaseException as error:  # SystemExit too: nothing must end in silence
        return fail(name, error)
    if says_interrupted and status == EXIT_INTERRUPTED and asked_to_end() and not is_launched():
        print(f"{name}: interrupted", file=sys.stderr)
    return status if isinstance(status, int) else 0


def _check_current_folder() -> None:
    """Refuse a folder that is gone, where relative paths lead nowhere and MKL ends the process."""
    try:
        os.getcwd()  # noqa: PTH109
    except OSError as error:
        raise UsageError(
            f"the current folder cannot be found ({reason_of(error)}): it was removed, or a folder "
            "above it may not be entered; change to another"
        ) from error


def without_separator(arguments: Sequence[str]) -> list[str]:
    """A command line without a ``--`` before its command, which says nothing there."""
    words = list(arguments)
    return words[1:] if words[:1] == ["--"] else words


def show_traceback(error: BaseException) -> None:
    """Print where an error was raised, if somebody wants to know."""
    if os.environ.get(TRACEBACK_VARIABLE):
        traceback.print_exception(error)


def fail(name: str, error: BaseException) -> int:
    """Say in one line what nobody expected."""
    if _is_of_output(error):
        if isinstance(error, BrokenPipeError):  # `| head`: the reader has enough
            return EXIT_FAILED
        reason = reason_of(error) if isinstance(error, OSError) else str(error)
        with suppress(OSError, ValueError):  # what is left in the buffer would fail once more
            discard(sys.stdout.fileno())
        print(f"{name}: error: the output could not be written: {reason}", file=sys.stderr)
        return EXIT_FAILED
    what, short = describe_error(error), shortage(error)
    if isinstance(error, OSError) and error.strerror:
        what = error.strerror[0].lower() + error.strerror[1:]
        what = f"{short} ({what})" if short else what
    what += advice_on(error)
    print(f"{name}: error: {printable(what)} ({TRACEBACK_VARIABLE}=1 shows where)", file=sys.stderr)
    show_traceback(error)
    return EXIT_FAILED


def note_output_errors() -> None:
    """Note what stdout does not take from now on: a socket or a file may fail in the same way."""
    stream = sys.stdout

    def noting(call: Callable[..., int | None]) -> Callable[..., int | None]:
        def noted(*arguments: str) -> int | None:
            try:
                return call(*arguments)
            except OSError as error:
                _output_errors[:] = [error]
                raise

        return noted

    if getattr(stream.write, "__name__", "") != noting.__name__:
        with suppress(AttributeError):  # a stream of others that lets nothing be changed
            for name in ("flush", "write"):
                call = noting(getattr(stream, name))
                call.__name__ = noting.__name__
                setattr(stream, name, call)


def _is_of_output(error: BaseException) -> bool:
    """Whether stdout did not take what was printed."""
    return isinstance(error, OSError) and any(error is noted for noted in _output_errors)


def parse_path(text: str | Path) -> Path:
    """The path that a word of the command line names.

    An empty word, as of a variable that is not set, would mean the current folder.

    Raises:
        typer.BadParameter: it is empty.
    """
    if not str(text):
        raise typer.BadParameter("it is empty: name a file or a folder")
    return Path(text)


def print_from_main(line: str) -> None:
    """Print a line, on rank 0 only."""
    if Rank.from_environment().is_main:
        print(printable(line), flush=True)


def complain(line: str) -> None:
    """Print a message of the workload on stderr, as one line, on rank 0 only."""
    if Rank.from_environment().is_main:
        print(f"{WORKLOAD}: {printable(' '.join(line.split()))}", file=sys.stderr)


def _refuse(name: str, message: str) -> int:
    if not prints_problems():
        # The launcher ends all ranks when the first one ends: that must be the one that prints.
        with suppress(KeyboardInterrupt):
            time.sleep(_REFUSAL_SECONDS)
        return EXIT_USAGE
    print(f"{name}: error: {shortened(message, _LONGEST_MESSAGE)}", file=sys.stderr)
    return EXIT_USAGE
