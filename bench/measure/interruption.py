"""Ctrl-C, SIGTERM and a lost terminal end a run, but never the keeping of its record."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interruption(AbstractContextManager["Interruption"]):
    """Turns the first of these signals into a KeyboardInterrupt, where one may be raised.

    Inside `with Interruption()` it may be at first; `hold` puts it off, `allow` brings it back.
    What comes while it is held, and all that follow the first (supervisors often send two), only
    sets `asked`, so that a record being written is written.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether somebody wants this to end."""
        self._how = ""
        self._allowed = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Take the signals."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give them back."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def allow(self) -> None:
        """From now on a signal raises; one that was put off does so now.

        Raises:
            KeyboardInterrupt: somebody has asked meanwhile.
        """
        if self.asked:
            raise KeyboardInterrupt(self._how)
        self._allowed = True

    def hold(self) -> None:
        """From now on a signal waits."""
        self._allowed = False

    def _arrived(self, number: int, _: FrameType | None) -> None:
        if not self.asked:
            self._how = f"ended by {signal.Signals(number).name}"
        self.asked = True
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt(self._how)
