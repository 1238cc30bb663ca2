"""`accelerate launch` for one process, with the program's exit status and Ctrl-C passed through.

Accelerate 1.15 turns every failure of the program into a traceback and exit status 1. On Ctrl-C it
ends after a quarter of a second and leaves the program running, in the middle of saving.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from contextlib import suppress
from types import FrameType

import psutil

INTERRUPT_SECONDS = 2
"""Seconds that the program has to end by a Ctrl-C that has reached it as well."""


def wait_for_the_program(number: int, _: FrameType | None) -> None:
    """Keep waiting: the program gets the signal too, saves its record and ends."""
    programs = psutil.Process().children()
    if not programs:
        sys.exit(128 + number)
    # Ctrl-C reaches every process of the terminal by itself; whoever interrupts this process alone
    # means the program, which gets it a little later.
    if number == signal.SIGINT:
        signal.signal(signal.SIGALRM, lambda *_: pass_on(signal.SIGINT))
        signal.alarm(INTERRUPT_SECONDS)
    else:
        pass_on(number)


def pass_on(number: int) -> None:
    """Send a signal to the program."""
    for program in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):
            program.send_signal(number)


if __name__ == "__main__":
    # A handler, unlike SIG_IGN, is not inherited by the program. What this process was started to
    # ignore, as by nohup, it goes on ignoring.
    for ending in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:
            signal.signal(ending, wait_for_the_program)
    # After the handlers: it takes seconds.
    from accelerate.commands.launch import main

    try:
        main()
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            name = signal.Signals(-error.returncode).name
            print(f"the benchmark was ended by {name}", file=sys.stderr)
            sys.exit(128 - error.returncode)
        sys.exit(error.returncode)
    finally:
        if hasattr(signal, "alarm"):
            signal.alarm(0)  # an interpreter that ends has no handlers: it would end this process
