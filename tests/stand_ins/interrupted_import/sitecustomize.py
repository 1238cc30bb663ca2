"""SIGINT for this process at the moment at which it begins to import the module INTERRUPT_AT."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


class Interrupter(MetaPathFinder):
    """Finds nothing: it only looks what is sought."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None, after the signal where its moment has come."""
        if name == os.environ["INTERRUPT_AT"]:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), getattr(signal, os.environ.get("INTERRUPT_BY", "SIGINT")))
        return None


if "INTERRUPT_AT" in os.environ:
    sys.meta_path.insert(0, Interrupter())
