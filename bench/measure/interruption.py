"""Let Ctrl-C, SIGTERM and a lost terminal end a run, but never the saving of its record."""

from __future__ import annotations

import os
import signal
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import NoReturn, Self

from bench.measure.guard_folder import is_orphaned, note_begun
from mnist_cnn.process import (
    ENDING_SIGNALS,
    ParentDiedError,
    asked_to_end,
    is_ignored,
    signal_name,
)


class Interruption(AbstractContextManager["Interruption"]):
    """Turns the first signal into a KeyboardInterrupt, when that is allowed.

    Inside `with Interruption()` it is allowed at first; `hold` forbids it and `allow` allows it
    again. A signal that comes while it is forbidden, and every signal after the first (supervisors
    often send two), only sets `asked`, so that a record that is being written is written. A signal
    that this process was started to ignore stays ignored, as under `nohup`.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether a signal has asked this process to end."""
        self._how = ""
        self._allowed = True
        self._before: dict[int, object] = {}
        self._parent = os.getppid()
        self._is_orphan = self._has_begun = False

    def __enter__(self) -> Self:
        """Install the signal handlers.

        Raises:
            KeyboardInterrupt: a signal came before, and the exception was lost on its way.
        """
        for number in ENDING_SIGNALS:
            if not is_ignored(number):
                self._before[number] = signal.signal(number, self._arrived)
        if before := asked_to_end():
            self.asked, self._how = True, before
            self._restore()
            raise KeyboardInterrupt(before)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the previous signal handlers."""
        self._restore()

    def allow(self) -> None:
        """Let a signal raise from now on; a signal that came meanwhile raises now.

        Raises:
            KeyboardInterrupt: a signal has come meanwhile.
        """
        self.check()
        self._allowed = True

    def hold(self) -> None:
        """Let a signal wait from now on: there is something to save."""
        self._allowed = False
        if not self._has_begun:
            self._has_begun = True
            note_begun()

    def check(self) -> None:
        """Raise again what a bare ``except`` in another module, or a callback, has swallowed.

        Raises:
            KeyboardInterrupt: a signal has come.
        """
        if self.asked:
            self._raise()

    @property
    def error(self) -> KeyboardInterrupt:
        """What a signal raises: how this process was asked to end."""
        return ParentDiedError(self._how) if self._is_orphan else KeyboardInterrupt(self._how)

    def _raise(self) -> NoReturn:
        raise self.error

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _arrived(self, number: int, _: FrameType | None) -> None:
        if not self.asked:
            self._how = f"ended by {signal_name(number)}"
            self._is_orphan = os.getppid() != self._parent or is_orphaned()
            if self._is_orphan:
                self._how = "the process that started this one has died"
        self.asked = True
        if self._allowed:
            self._allowed = False
            self._raise()
