"""One file a command: parse the options into a value, call one function, print the result.

A command imports slow modules only when it is called: `mnist-bench report` must not wait for torch.
Nothing is imported here before the process can be interrupted without a traceback.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as typing has it, whose import takes time
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn

    from bench.launch.guard import Ending

_PROGRAM = "mnist-bench"
_NOT_IMPORTED = (EOFError, ImportError, MemoryError)
"""What an import fails by: bytecode that is cut off, a missing module, too little memory."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        arguments: the words after the program name; None to use those of this process, which then
            is the command's own: it gets streams, signals and, to measure, a guardian.

    Returns:
        The exit status: 0 done, 1 a run, a save or a check failed, 2 bad input, 130 interrupted.
        Without arguments it does not return: the process ends with that status.
    """
    if arguments is None:
        main_of(sys.argv[1:])
    return _run_words(list(arguments))


def main_of(words: Sequence[str]) -> NoReturn:
    """Run a command line as the command of this process, and end the process."""
    # Nothing before this: a signal may come at any moment.
    from mnist_cnn.first_signals import exit_on_signals

    exit_on_signals(_PROGRAM)
    from mnist_cnn.rank import exit_process

    exit_process(start(words))


def start(words: Sequence[str]) -> int:
    """Run a command line as the command of this process.

    Returns:
        As `main`.
    """
    from mnist_cnn.process import EXIT_INTERRUPTED, ignore_signals, prepare_streams

    prepare_streams()
    try:
        return _start(list(words))
    except KeyboardInterrupt:  # between the last of what catches it and the end
        ignore_signals()
        return EXIT_INTERRUPTED


def _start(words: list[str]) -> int:
    from mnist_cnn.process import EXIT_INTERRUPTED, end_on_signals, ignore_signals

    if words[:1] == ["--"]:  # as `mnist_cnn.console.without_separator`, which takes time to import
        words = words[1:]
    is_guarded = words[:1] == ["run"]
    try:
        if is_guarded:
            from bench.launch.guard import run_guarded

            return run_guarded(lambda: _run_words(words, says_interrupted=False), _conclude)
        from bench.cli import app  # noqa: F401  # while a signal ends the process at once
        from mnist_cnn import console  # noqa: F401

        end_on_signals()
        return _run_words(words)
    except KeyboardInterrupt:
        if not is_guarded:  # else the guardian says it
            print(f"{_PROGRAM}: interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except _NOT_IMPORTED as error:
        return _fail_to_import(error)
    finally:
        ignore_signals()  # the interpreter is ending, which may take a second


def _run_words(words: list[str], *, says_interrupted: bool = True) -> int:
    words = words or ["--help"]
    try:
        from bench.cli.app import make_app
        from mnist_cnn import console

        app = make_app(words)
    except _NOT_IMPORTED as error:  # said here: a guardian takes silence for a sudden end
        return _fail_to_import(error)
    return console.run(app, _PROGRAM, words, says_interrupted=says_interrupted)


def _fail_to_import(error: BaseException) -> int:
    from mnist_cnn.errors import advice_on
    from mnist_cnn.process import EXIT_FAILED

    what = f"{type(error).__name__}: {error}{advice_on(error)}"
    print(f"{_PROGRAM}: error: {what}", file=sys.stderr)
    return EXIT_FAILED


def _conclude(ending: Ending) -> int:
    """Say how the process that measured has ended, where it could not say that itself."""
    from bench.launch.recovery import recover
    from mnist_cnn import console

    console.note_output_errors()
    try:
        recovery = recover(ending)
        if recovery.result.runs:
            from bench.cli.output import print_runs

            print_runs(recovery.result, as_json=recovery.as_json)
            sys.stdout.flush()
    except Exception as error:
        return console.fail(_PROGRAM, error)
    return recovery.status
