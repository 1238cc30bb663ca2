"""`accelerate launch` for one process, with the program's exit code and Ctrl-C passed through.

Accelerate 1.15 turns every failure of the program into a traceback and exit code 1, and on Ctrl-C
leaves it running in the background after a quarter of a second, in the middle of saving.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from types import FrameType

import psutil
from accelerate.commands.launch import main


def leave_it_to_the_program(number: int, _: FrameType | None) -> None:
    """Go on waiting: the program was told as well, saves its record, and ends."""
    programs = psutil.Process().children()
    if not programs:
        sys.exit(128 + number)
    # Ctrl-C reaches every process of the terminal; a supervisor's SIGTERM only this one.
    if number == signal.SIGTERM:
        for program in programs:
            program.terminate()


if __name__ == "__main__":
    # Handlers, unlike SIG_IGN, are not inherited by the program.
    signal.signal(signal.SIGINT, leave_it_to_the_program)
    signal.signal(signal.SIGTERM, leave_it_to_the_program)
    try:
        main()
    except subprocess.CalledProcessError as error:
        if error.returncode < 0:
            name = signal.Signals(-error.returncode).name
            print(f"the benchmark was ended by {name}", file=sys.stderr)
            sys.exit(128 - error.returncode)
        sys.exit(error.returncode)
