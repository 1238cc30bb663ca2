"""pytest-benchmark for machines that differ: a storage a device, and no comparison across them.

By itself it keys its storage by operating system and Python alone, so a GPU's times and a CPU's lie
side by side, and it only warns where another machine's are compared. Where nothing is stored yet,
it ends in a traceback; here that passes and says so.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bench.machine.environment import describe_environment, device_name
from bench.measure.plan import choose_device
from bench.records.store import machine_name

DEFAULT_STORAGE = "file://./.benchmarks"
NOTHING_STORED = pytest.StashKey[bool]()
"""Whether a comparison was asked for where no times are stored."""


@cache
def machine() -> dict[str, str]:
    """What must be the same for two times to be compared."""
    device = choose_device("auto")
    environment = describe_environment(device, device_name(device))
    return {
        "device": device,
        "device_name": environment.device_name,
        "processor": environment.cpu,
        "folder": machine_name(environment),
    }


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    """Before pytest-benchmark opens its storage."""
    if getattr(config.option, "benchmark_storage", None) == DEFAULT_STORAGE:
        config.option.benchmark_storage = f"{DEFAULT_STORAGE}/{machine()['folder']}"
    compare = getattr(config.option, "benchmark_compare", None)
    if compare and not _is_stored(compare, str(config.option.benchmark_storage)):
        # pytest-benchmark warns, which is an error here, and then ends in a traceback.
        if compare is not True:
            raise pytest.UsageError(f"no stored times are called {compare!r}")
        config.option.benchmark_compare = []
        config.option.benchmark_compare_fail = []
        config.stash[NOTHING_STORED] = True


def _is_stored(name: str | bool, storage: str) -> bool:
    """Whether times of that name are stored, or any times where it is True."""
    kind, _, folder = storage.rpartition("://")
    if kind not in ("", "file"):
        return True  # not known here
    if name is True:
        return any(Path(folder).rglob("[0-9][0-9][0-9][0-9]_*.json"))
    return Path(str(name)).is_file() or any(Path(folder).rglob(f"*{Path(str(name)).name}*"))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Say that nothing was compared."""
    if config.stash.get(NOTHING_STORED, False):
        terminalreporter.write_line(
            "no baseline yet: no times of this machine are stored, so nothing was compared; "
            "--benchmark-autosave stores some"
        )


def pytest_benchmark_update_machine_info(
    config: pytest.Config, machine_info: dict[str, Any]
) -> None:
    """Keep it with the times."""
    del config
    machine_info["benchmarked"] = machine()


def pytest_benchmark_compare_machine_info(
    config: pytest.Config,
    benchmarksession: object,
    machine_info: dict[str, Any],
    compared_benchmark: dict[str, Any],
) -> None:
    """Refuse another machine's times."""
    del config, benchmarksession, machine_info
    theirs = compared_benchmark["machine_info"].get("benchmarked")
    if theirs != machine():
        name = (theirs or {}).get("device_name", "an unknown machine")
        raise pytest.UsageError(
            f"these times are of {name}, this is {machine()['device_name']}: "
            "save some here with --benchmark-autosave, and compare with those"
        )
