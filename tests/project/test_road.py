"""scripts/road.py: the table it makes of records."""

from __future__ import annotations

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType

import pytest

from tests.factories import make_record

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "road.py"


@pytest.fixture(scope="module")
def road() -> ModuleType:
    spec = spec_from_file_location("road", SCRIPT)
    assert spec
    assert spec.loader
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def trained(label: str, seed: int, seconds: float, status: str = "completed") -> object:
    laps = [{"kind": "train", "epoch": 1, "start_seconds": 0.0, "seconds": seconds}]
    reason = None if status == "completed" else "stopped"
    return make_record(label=label, seed=seed, laps=laps, status=status, reason=reason)


def test_ratios_are_of_the_same_round_and_what_did_not_end_does_not_count(road: ModuleType) -> None:
    records = [
        trained("plain", 0, 60.0),
        trained("plain", 1, 90.0),
        trained("plain", 2, 70.0, status="interrupted"),
        trained("amx", 0, 4.0),
        trained("amx", 1, 5.0),
        trained("amx", 2, 1.0),
        trained("something else", 0, 1.0),
    ]
    _, plain, amx = road.table(records, ["plain", "amx", "fast"]).splitlines()
    assert plain.split() == ["plain", "2", "75.0", "60.0", "90.0", "1.0"]
    assert amx.split() == ["amx", "3", "4.0", "1.0", "5.0", "16.5"]  # of 15 and 18 times
