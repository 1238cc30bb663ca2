"""Let Ctrl-C, SIGTERM and a lost terminal end a run, but never the saving of its record."""

from __future__ import annotations

import signal
from contextlib import AbstractContextManager
from types import FrameType, TracebackType
from typing import Self

_SIGNALS = [
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
]


class Interruption(AbstractContextManager["Interruption"]):
    """Turns the first signal into a KeyboardInterrupt, when that is allowed.

    Inside `with Interruption()` it is allowed at first; `hold` forbids it and `allow` allows it
    again. A signal that comes while it is forbidden, and every signal after the first (supervisors
    often send two), only sets `asked`, so that a record that is being written is written.
    """

    def __init__(self) -> None:
        self.asked = False
        """Whether a signal has asked this process to end."""
        self._how = ""
        self._allowed = True
        self._before: dict[int, object] = {}

    def __enter__(self) -> Self:
        """Install the signal handlers."""
        for number in _SIGNALS:
            self._before[number] = signal.signal(number, self._arrived)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def allow(self) -> None:
        """Let a signal raise from now on; a signal that came meanwhile raises now.

        Raises:
            KeyboardInterrupt: a signal has come meanwhile.
        """
        if self.asked:
            raise KeyboardInterrupt(self._how)
        self._allowed = True

    def hold(self) -> None:
        """Let a signal wait from now on."""
        self._allowed = False

    def _arrived(self, number: int, _: FrameType | None) -> None:
        if not self.asked:
            self._how = f"ended by {signal.Signals(number).name}"
        self.asked = True
        if self._allowed:
            self._allowed = False
            raise KeyboardInterrupt(self._how)
