"""Ctrl-C at every moment at which CPython raises it: after each call, at each function's start."""

from __future__ import annotations

import dis
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import pairwise
from types import CodeType, FrameType
from typing import Any

_CHECKED = ("CALL", "RESUME", "JUMP_BACKWARD")
"""How instructions begin after which the interpreter looks for signals."""


@cache
def _moments(code: CodeType) -> frozenset[int]:
    """Offsets of the instructions before which a signal may raise."""
    instructions = [one for one in dis.get_instructions(code) if one.opname != "CACHE"]
    return frozenset(
        after.offset
        for before, after in pairwise(instructions)
        if before.opname.startswith(_CHECKED)
    )


def interrupted_at(number: int, function: Callable[[], object]) -> bool:
    """Call a function and interrupt it.

    Args:
        number: which moment, from 0.
        function: what is called.

    Returns:
        Whether there was such a moment.
    """
    left = number

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal left
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in _moments(frame.f_code):
            left -= 1
            if left < 0:
                sys.settrace(None)
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    # Python 3.12 traces instructions only if a frame had asked for it before.
    sys._getframe().f_trace_opcodes = True
    sys.settrace(trace)
    try:
        function()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return left < 0


def interrupted_everywhere(function: Callable[[], object]) -> Iterator[int]:
    """Call a function again and again, interrupted a moment later each time, until it is not.

    Yields:
        The number of the moment, after the interruption.
    """
    number = 0
    while interrupted_at(number, function):
        yield number
        number += 1
    assert number, "never interrupted"
