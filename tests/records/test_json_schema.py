"""The published JSON Schema: it is today's, describes every field and takes what is committed."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from bench.records.json_schema import record_schema
from bench.records.schema import SCHEMA_VERSION
from tests.factories import make_record

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = ROOT / "docs" / "run-record.schema.json"


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return record_schema()


def errors(schema: dict[str, Any], document: Any) -> list[str]:
    return [error.message for error in Draft202012Validator(schema).iter_errors(document)]


def test_what_is_published_is_todays_schema(
    schema: dict[str, Any], check_golden: Callable[[Path, bytes], None]
) -> None:
    check_golden(PUBLISHED, f"{json.dumps(schema, indent=2)}\n".encode())
    assert schema["version"] == SCHEMA_VERSION
    Draft202012Validator.check_schema(schema)


def test_every_field_has_a_sentence(schema: dict[str, Any]) -> None:
    for name, definition in ({"RunRecord": schema} | schema["$defs"]).items():
        assert name == "JsonValue" or definition["description"], name
        for field, values in definition.get("properties", {}).items():
            assert values["description"].endswith((".", ")")), f"{name}.{field}"


def committed_records(folder: Path) -> Iterator[Any]:
    for file in sorted((folder / "results").rglob("*.json")):
        document = json.loads(file.read_text())
        if "run_id" in document:  # not a plan, a calibration or a noise floor
            yield document


def test_all_records_of_today_fit(schema: dict[str, Any], committed: Path) -> None:
    documents = [one for one in committed_records(committed) if one["schema_version"] > 8]
    assert len(documents) > 50
    for document in documents:
        assert errors(schema, document) == []


def test_what_reading_refuses_does_not_fit(schema: dict[str, Any]) -> None:
    document = json.loads(make_record().model_dump_json())
    assert errors(schema, document) == []
    for change in ({"unknown": 1}, {"seed": -1}, {"status": "good"}, {"laps": None}):
        assert len(errors(schema, document | change)) == 1
    del document["seed"]
    assert errors(schema, document) == ["'seed' is a required property"]
