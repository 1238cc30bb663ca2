"""Which noise floors count for a machine, and what several sessions of it say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bench.records.machine_key import MachineKey
from bench.records.sidecars import (
    TRAINING_FLOPS,
    NoiseFloor,
    PeakFlops,
    find_machine_noise,
    find_noise_floor,
    find_peak_flops,
    read_noise_floors,
    write_sidecar,
)
from mnist_cnn.model import MnistCnn
from mnist_cnn.summary import training_flops
from tests.factories import ZEN_4, ZEN_5, make_record

CASE, DEVICE = "fast, cpu, 1 process, 2 threads, bf16", "AMD EPYC"
START = datetime(2026, 11, 28, 9, tzinfo=UTC)
OLD = NoiseFloor(
    case=CASE,
    relative=0.042,
    rounds=18,
    measured_at=START,
    device_name=DEVICE,
    commit="0123456",
    torch="2.15.0",
)


def floor(hours: float, microseconds: float, **fields: object) -> NoiseFloor:
    """A floor of a known machine that was measured so many hours later, in ten minutes."""
    at = START + timedelta(hours=hours)
    known = {
        "measured_at": at,
        "started_at": at - timedelta(minutes=10),
        "machine": "abc123",
        "source_sha256": "5" * 64,
        "seconds_per_image": microseconds * 1e-6,
    }
    return OLD.model_copy(update=known | fields)


def test_the_larger_of_the_last_floor_and_the_spread_over_sessions_counts() -> None:
    floors = [floor(0, 41.0), floor(3, 43.5), floor(30, 42.0, relative=0.03)]
    noise = find_machine_noise(CASE, DEVICE, floors, "abc123")
    assert noise is not None
    assert noise.relative == pytest.approx(43.5 / 41 - 1)
    assert str(noise) == "noise floor 3.0 % within a session, 6.1 % over 3 sessions"
    assert find_noise_floor(CASE, DEVICE, floors, "abc123") == noise.relative
    quiet = [floor(0, 41.0), floor(3, 41.1)]
    assert find_noise_floor(CASE, DEVICE, quiet, "abc123") == 0.042


def test_floors_within_an_hour_are_of_one_session() -> None:
    noise = find_machine_noise(CASE, DEVICE, [floor(0, 41.0), floor(0.8, 43.0)], "abc123")
    assert noise is not None
    assert (noise.between, noise.sessions) == (None, 1)


@pytest.mark.parametrize(
    "other", [{"source_sha256": "6" * 64}, {"torch": "2.16.0"}, {"seconds_per_image": None}]
)
def test_only_sessions_of_the_same_code_are_compared(other: dict[str, object]) -> None:
    """Faster code is no noise."""
    noise = find_machine_noise(CASE, DEVICE, [floor(0, 82.0, **other), floor(3, 41.0)], "abc123")
    assert noise is not None
    assert noise.between is None


def test_another_machine_of_the_same_name_does_not_count() -> None:
    other = floor(5, 20.0, machine="def456", relative=0.5)
    assert find_noise_floor(CASE, DEVICE, [floor(0, 41.0), other], "abc123") == 0.042
    assert find_noise_floor(CASE, DEVICE, [other], "abc123") == 0.0
    assert find_noise_floor("another case", DEVICE, [other], "def456") == 0.0


def test_a_floor_of_an_unknown_machine_counts_where_there_is_no_other_and_says_so() -> None:
    noise = find_machine_noise(CASE, DEVICE, [OLD], "abc123")
    assert noise is not None
    assert noise.relative == 0.042
    assert str(noise).endswith("(of a device with this name)")
    assert find_noise_floor(CASE, DEVICE, [OLD, floor(-1, 41.0, relative=0.01)], "abc123") == 0.01
    # Where the record's machine is not known, as the gate of older versions asks.
    assert find_noise_floor(CASE, DEVICE, [floor(0, 41.0)]) == 0.042
    assert find_noise_floor(CASE, "another device", [OLD], "abc123") == 0.0


def test_files_without_the_newer_fields_are_read(tmp_path: Path) -> None:
    committed = Path(__file__).resolve().parents[2] / "results" / "intel-xeon-2-cores"
    (old,) = read_noise_floors([committed])
    assert (old.machine, old.seconds_per_image) == (None, None)
    write_sidecar(floor(0, 41.0), tmp_path)
    assert read_noise_floors([tmp_path]) == [floor(0, 41.0)]


def test_the_operations_of_a_training_step_are_those_of_the_network() -> None:
    assert training_flops(MnistCnn()) == TRAINING_FLOPS


def test_a_peak_is_of_one_machine() -> None:
    """Two machines of one name, and a file that does not know which of them it is of."""
    known = make_record(environment={"processor": ZEN_5})
    peak = PeakFlops(
        device="cpu",
        device_name=known.setup.device_name,
        precision=known.setup.precision,
        threads=known.setup.threads,
        flops_per_second=1e12,
        side=512,
        measured_at=START,
        commit=None,
        torch="2.15.0",
        machine=MachineKey.of(known.environment).digest,
    )
    unknown = peak.model_copy(update={"machine": None, "flops_per_second": 5e11})
    other, old = make_record(environment={"processor": ZEN_4}), make_record()
    assert find_peak_flops(known, [peak, unknown]) == 1e12
    assert find_peak_flops(other, [peak, unknown]) is None
    assert find_peak_flops(old, [peak, unknown]) == 5e11


def test_a_moment_without_a_zone_is_compared_with_others() -> None:
    record = make_record()
    peak = PeakFlops(
        device="cpu",
        device_name=record.setup.device_name,
        precision=record.setup.multiplies_in,
        threads=2,
        flops_per_second=1e11,
        side=2048,
        measured_at=START.replace(tzinfo=None),
        commit=None,
        torch="2.15.0",
        machine=MachineKey.of(record.environment).digest,
    )
    later = {"measured_at": START + timedelta(hours=1), "flops_per_second": 2e11}
    assert find_peak_flops(record, [peak, peak.model_copy(update=later)]) == 2e11
