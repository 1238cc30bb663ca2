"""What a process does first: it has streams, and a signal ends it without a traceback.

Imports nothing that takes time: a signal may come while the rest is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, TextIO

EXIT_FAILED = 1
"""A run, or saving its results, failed."""
EXIT_USAGE = 2
"""Bad input."""
EXIT_INTERRUPTED = 130
"""128 + SIGINT, as a shell reports it."""
ENDING_SIGNALS = tuple(
    signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)
"""What asks a process to end, and lets it finish what it is saving."""

_state = {"asked": "", "raises": "always"}


class ParentDiedError(KeyboardInterrupt):
    """A signal asks this process to end because the process that started it has died."""


class UnfailingStream:
    """A stream for messages: a full disk or a closed terminal ends no work.

    After the first failure the stream leads to nowhere, also for C code that writes to it.

    Args:
        stream: the stream to write to.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write if possible."""
        try:
            return self._stream.write(text)
        except (OSError, ValueError):
            self._give_up()
            return len(text)

    def flush(self) -> None:
        """Flush if possible."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._give_up()

    def __getattr__(self, name: str) -> Any:
        """Everything else is as of the stream itself."""
        return getattr(self._stream, name)

    def _give_up(self) -> None:
        try:
            discard(self._stream.fileno())
        except (OSError, ValueError):
            self._stream = open(os.devnull, "w", encoding="utf-8")  # noqa: PTH123, SIM115


def discard(descriptor: int) -> None:
    """Let what is written to a file descriptor go nowhere, whatever is buffered included."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def prepare_streams() -> None:
    """Open the standard streams that are closed, and make messages unable to fail.

    Without them the next file that is opened would get their number, and what is printed would go
    into it.
    """
    for number, flags in ((0, os.O_RDONLY), (1, os.O_WRONLY), (2, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # The lowest free number is this one: those below are open by now.
            os.open(os.devnull, flags)
    for name in ("stdin", "stdout", "stderr"):
        if getattr(sys, name) is None:
            mode = "r" if name == "stdin" else "w"
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115
    if not isinstance(sys.stderr, UnfailingStream):
        sys.stderr = UnfailingStream(sys.stderr)


def signal_name(number: int) -> str:
    """``"SIGKILL"``; real-time signals have numbers only."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def exit_reason(code: int) -> str:
    """How a process ended: ``"was ended by SIGKILL"``, ``"ended with status 3"``.

    Args:
        code: exit status; minus the signal's number where a signal ended it.
    """
    return f"was ended by {signal_name(-code)}" if code < 0 else f"ended with status {code}"


def is_ignored(number: int) -> bool:
    """Whether whoever started this process wants it to ignore a signal, as `nohup` does."""
    return signal.getsignal(number) is signal.SIG_IGN


def end_on_signals(*, once: bool = False) -> None:
    """Turn every signal that asks this process to end into a KeyboardInterrupt.

    Args:
        once: whether only the first one does: where others pass the same signal on, it comes twice.
    """
    _state.update(asked="", raises="once" if once else "always")
    for number in ENDING_SIGNALS:
        if not is_ignored(number):
            signal.signal(number, _end)
    sys.unraisablehook = _tell_but_of_signals
    if hasattr(signal, "pthread_sigmask"):
        # Whoever started this process may have blocked them until it was ready.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDING_SIGNALS)


def ignore_signals() -> None:
    """Ignore the signals that ask this process to end: it is ending."""
    for number in ENDING_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def asked_to_end() -> str:
    """How a signal has asked this process to end: ``"ended by SIGINT"``; empty if none has."""
    return _state["asked"]


def _tell_but_of_signals(unraisable: sys.UnraisableHookArgs) -> None:
    """Tell of an exception that Python cannot raise, as in a destructor.

    A signal that came there is heeded later, by whoever reads `asked_to_end`.
    """
    if not isinstance(unraisable.exc_value, KeyboardInterrupt):
        sys.__unraisablehook__(unraisable)


def _end(number: int, _: FrameType | None) -> None:
    before, _state["asked"] = _state["asked"], f"ended by {signal_name(number)}"
    if not before or _state["raises"] == "always":
        raise KeyboardInterrupt(_state["asked"])
