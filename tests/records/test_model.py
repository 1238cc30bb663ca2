"""How a document is read: strictly, within bounds, and refused in one line."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings, strategies as st
from pydantic import ValidationError

from bench.records import benchmark_plan, sidecars, store, sweep_plan
from bench.records.model import Model, parse_json
from bench.records.record_file import UnreadableFile, parse_record
from bench.records.schema import RunRecord
from mnist_cnn.errors import UsageError
from tests.factories import make_record

RECORD: dict[str, Any] = json.loads(store.to_json(make_record()))


def changed(place: str, value: object) -> bytes:
    """The record with another value at a place, such as ``laps.0.seconds``."""
    values = json.loads(json.dumps(RECORD))
    *parents, last = [int(name) if name.isdigit() else name for name in place.split(".")]
    part = values
    for name in parents:
        part = part[name]
    part[last] = value
    return json.dumps(values).encode()


def refusal(content: bytes) -> str:
    result = parse_record(Path("a.json"), content)
    assert isinstance(result, UnreadableFile), result
    assert "\n" not in result.reason
    return result.reason


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("seed", True),
        ("seed", "2"),
        ("seed", " 2 "),
        ("seed", "1_0"),
        ("seed", "٣"),
        ("seed", 0.0),
        ("seed", 10**4000),
        ("run_index", 10**30),
        ("schema_version", True),
        ("setup.captured", 1),
        ("setup.captured", "yes"),
        ("setup.processes", 10**30),
        ("laps.0.seconds", "1"),
        ("laps.0.seconds", True),
        ("laps.0.seconds", 1e308),
        ("laps.0.start_seconds", -1e308),
        ("epochs.0.loss", 1e308),
        ("epochs.0.epoch", 10**400),
        ("load.busy_seconds", 1e308),
        ("load.load_average_before", 1e308),
        ("environment.memory_bytes", 10**400),
        ("environment.logical_cores", 10**4000),
        ("environment.dirty", 1),
        ("protocol.stop_at_target", 0),
        ("recipe.epochs", 10**400),
        ("recipe.batch_size", 10**400),
    ],
)
def test_a_number_is_a_number_within_bounds(place: str, value: object) -> None:
    assert place.rpartition(".")[2] in refusal(changed(place, value))


def test_a_key_that_is_there_twice_is_refused() -> None:
    text = store.to_json(make_record()).rstrip()[:-1]
    assert refusal(f'{text}, "seed": 7}}'.encode()) == (
        "Invalid JSON: the key 'seed' is there twice"
    )
    assert "'a' is there twice" in refusal(b'{"recipe": {"a": 1, "a": 1}}')


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_another_encoding_is_named(encoding: str) -> None:
    reason = refusal(store.to_json(make_record()).encode(encoding))
    assert reason.startswith("Invalid JSON: it is UTF-")
    assert reason.endswith("save it as plain UTF-8")


@pytest.mark.parametrize("content", [b"[" * 1_000_000, b'{"a":' * 100_000, b'[{"a":' * 5000])
def test_deep_nesting_is_one_line(content: bytes) -> None:
    assert refusal(content) == "Invalid JSON: nested too deeply"


JSON_LETTERS = '{}[]",:0123456789eE+-.truefalsn \\u'
SCALARS = st.one_of(
    st.none(), st.booleans(), st.integers(-(10**30), 10**30), st.floats(), st.text(max_size=5)
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


def places(values: Mapping[str, Any] | list[Any], prefix: str = "") -> list[str]:
    items = values.items() if isinstance(values, Mapping) else enumerate(values)
    found = []
    for name, value in items:
        found.append(f"{prefix}{name}")
        if isinstance(value, dict | list):
            found += places(value, f"{prefix}{name}.")
    return found


@pytest.mark.slow
@settings(max_examples=300, derandomize=True)
@given(st.sampled_from(places(RECORD)), VALUES)
def test_any_change_of_a_record_is_read_or_refused_in_one_line(place: str, value: object) -> None:
    result = parse_record(Path("a.json"), changed(place, value))
    if isinstance(result, UnreadableFile):
        assert result.reason.isprintable()
    else:
        assert isinstance(parse_record(Path("b"), store.to_json(result).encode()), RunRecord)


@settings(max_examples=300, derandomize=True)
@given(
    st.binary(max_size=40) | st.text(alphabet='{}[]",:0123456789eE+-.truefalsn \\u', max_size=40)
)
@example(b"\xff\xfe")
@example("1" * 5000)
def test_any_bytes_are_json_or_refused_in_one_line(content: bytes | str) -> None:
    data = content.encode() if isinstance(content, str) else content
    reason = ""
    try:
        parse_json(data)
    except ValueError as error:
        reason = str(error)
    assert "\n" not in reason


@pytest.mark.slow
@settings(max_examples=100, derandomize=True)
@given(content=st.binary(max_size=60) | VALUES.map(lambda value: json.dumps(value).encode()))
def test_plans_and_measurements_of_any_content_are_refused(
    content: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any-content"
    folder.mkdir(exist_ok=True)
    for suffix in (".plan", ".peak", ".noise", ".sweep"):
        (folder / f"a{suffix}").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        benchmark_plan.read_plan(folder / "a.plan")
    with pytest.raises(ValueError, match=r"."):
        sweep_plan.read_sweep_plan(folder / "a.sweep")
    assert sidecars.read_peak_flops([folder]) == ([], [folder / "a.peak"])
    with pytest.raises(UsageError, match="no noise floor"):
        sidecars.read_noise_floors([folder])


@pytest.mark.parametrize("text", [r'"\ud800"', r'{"\uDFFF": 1}', r'[[{"a": "\udc00\ud800"}]]'])
def test_half_a_character_is_no_text(text: str) -> None:
    with pytest.raises(ValueError, match="half a character"):
        parse_json(text.encode())
    assert parse_json(rb'"\ud83d\ude00"') == "\N{GRINNING FACE}"


def test_half_a_character_may_be_deep() -> None:
    for depth in range(1, 1100):  # where Python's own limit is depends on who calls
        with pytest.raises(ValueError, match=r"half a character|nested too deeply"):
            parse_json(b"[" * depth + rb'"\ud800"' + b"]" * depth)


def test_a_command_that_is_no_text_is_saved(tmp_path: Path) -> None:
    path = store.save_record(make_record(label="a\udcff", command=["x", "\udcff"]), tmp_path)
    assert [record.label for _, record in store.read_records([path]).records] == ["a?"]


def test_of_very_many_keys_the_one_that_is_there_twice_is_named() -> None:
    keys = ",".join(f'"{number}":0' for number in range(300_000))
    with pytest.raises(ValueError, match="the key '299999' is there twice"):
        parse_json(f'{{{keys},"299999":1}}'.encode())


@pytest.mark.parametrize("key", ["k" * 50_000, "k\x1b" * 9])
def test_a_reason_is_a_line_whatever_it_quotes(key: str) -> None:
    reason = refusal(json.dumps(RECORD | {key: 1}).encode())
    assert reason.isprintable()
    assert len(reason) <= 200


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00"])
@pytest.mark.parametrize(
    ("kind", "field"),
    [
        (benchmark_plan.BenchmarkPlan, "written_at"),
        (sweep_plan.SweepPlanEntry, "started_at"),
        (sidecars.NoiseFloor, "measured_at"),
        (sidecars.NoiseFloor, "started_at"),
        (sidecars.PeakFlops, "measured_at"),
        (RunRecord, "started_at"),
    ],
)
def test_a_moment_is_in_a_year_of_utc(kind: type[Model], field: str, at: str) -> None:
    with pytest.raises(ValidationError, match="it is in no year that UTC has"):
        kind.model_validate({field: at})
