"""A fault at an exact moment, in every process that has this folder on its PYTHONPATH.

FAULT="<rank>|<module>:<attribute>|<nth call>|<action>", several separated by ";". The rank is that
of the process (RANK; "*" for every one). The action is ``signal=NAME`` for the process itself,
``parent=NAME`` for its parent, ``group=NAME`` for all of its process group, ``raise=<expression>``,
``exit=<status>`` (at once, without a word) or ``sleep=<seconds>``; ``later:`` before it lets the
call begin first. FAULT_MOMENT names a file for the time of the first action: without it, none
happened.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading
import time
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any

runpy.run_path(str(Path(__file__).resolve().parents[1] / "few_images" / "sitecustomize.py"))


def act(action: str) -> None:
    """Do what the fault says, but never to a guardian: it is to tell of the fault."""
    if "MNIST_BENCH_GUARD" not in os.environ:
        return
    if action.startswith("later:"):
        wait = threading.Timer(0.05, act, (action.removeprefix("later:"),))
        wait.daemon = True
        wait.start()
        return
    if (moment := os.environ.get("FAULT_MOMENT")) and not Path(moment).exists():
        Path(moment).write_text(str(time.monotonic()), encoding="ascii")
    kind, _, value = action.partition("=")
    match kind:
        case "signal":
            number = int(value) if value.isdigit() else signal.Signals[value]
            os.kill(os.getpid(), number)
        case "parent":
            os.kill(os.getppid(), signal.Signals[value])
        case "group":
            os.killpg(0, signal.Signals[value])
        case "raise":
            raise eval(value)
        case "exit":
            os._exit(int(value))
        case "sleep":
            time.sleep(float(value))


def break_call(module: ModuleType, attribute: str, nth: int, action: str) -> None:
    """Have the nth call of a function or method do something else first."""
    owner: Any = module
    *owners, name = attribute.split(".")
    for part in owners:
        owner = getattr(owner, part)
    original, calls = getattr(owner, name), 0

    def broken(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == nth:
            act(action)
        return original(*arguments, **named)

    setattr(owner, name, broken)


class FaultFinder(MetaPathFinder):
    """Finds the modules as ever, and breaks a call right after they were executed."""

    def __init__(self, faults: list[tuple[str, str, int, str]]) -> None:
        self._faults = faults

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The module's own specification, with a loader that breaks calls."""
        chosen = [fault for fault in self._faults if fault[0] == name]
        if not chosen:
            return None
        self._faults = [fault for fault in self._faults if fault[0] != name]
        spec = find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def execute_and_break(module: ModuleType) -> None:
            execute(module)
            for _, attribute, nth, action in chosen:
                break_call(module, attribute, nth, action)

        setattr(spec.loader, "exec_module", execute_and_break)  # noqa: B010
        return spec


faults = []
for one in filter(None, os.environ.get("FAULT", "").split(";")):
    rank, where, nth, action = one.split("|")
    module_name, _, attribute = where.partition(":")
    if rank in ("*", os.environ.get("RANK", "0")):
        faults.append((module_name, attribute, int(nth), action))
if faults:
    sys.meta_path.insert(0, FaultFinder(faults))
