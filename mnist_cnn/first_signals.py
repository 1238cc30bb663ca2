"""What a program does before anything else: a signal while it starts ends it in one line.

Imports only what every interpreter has imported already.
"""

import _signal  # type: ignore[import-not-found]  # `signal` imports enum, which takes time
import os

_EXIT_INTERRUPTED = 130  # as `mnist_cnn.process` has it, which takes longer to import
_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")


def exit_on_signals(program: str) -> None:
    """Let a signal that asks this process to end do so at once: nothing is begun.

    It holds until `mnist_cnn.process.end_on_signals`. An exception would not do: the import during
    which it is raised may swallow it, and nobody catches it yet.

    Args:
        program: the program's name in its message.
    """

    def leave(*_: object) -> None:
        if os.environ.get("LOCAL_RANK", "0") == "0":
            try:  # noqa: SIM105  # contextlib takes time
                os.write(2, f"{program}: interrupted\n".encode())
            except OSError:
                pass
        os._exit(_EXIT_INTERRUPTED)

    for name in _NAMES:
        number = getattr(_signal, name, None)
        if number is not None and _signal.getsignal(number) != _signal.SIG_IGN:
            _signal.signal(number, leave)
