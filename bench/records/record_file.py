"""One record's file: its name, its text, and what is wrong with a file that is no record."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import ValidationError

from bench.records.machine_key import MachineKey
from bench.records.model import parse_json
from bench.records.schema import READABLE_VERSIONS, Environment, RunRecord
from bench.text import encodable, printable
from mnist_cnn.escaping import shortened

LARGEST_RECORD_BYTES = 16 * 1024**2
"""Most bytes of a record: a thousand times those of a usual one."""
_LONGEST_NAME = 60
"""Characters of a device's or a recipe's name in the name of a folder or file."""
_OMITTED_WORDS = re.compile(
    r"\((?:r|tm|c)\)|@.*|\b\d+-core\b|\b(?:cpu|gpu|processor|corporation)\b", re.IGNORECASE
)
"""Parts of a device's name that nobody would guess in a folder's name."""
_NO_VERSION = "not a run record: it has no schema_version"


@dataclass(frozen=True, slots=True)
class UnreadableFile:
    """A file that is not among the records, although it was to be read."""

    path: Path
    reason: str
    """Why, in one line."""


def file_name(record: RunRecord) -> str:
    """The name of a record's file: when the run started, its recipe and its id."""
    return _file_name(record.started_utc, record.recipe.get("name"), record.run_id)


def record_name_like(recipe_name: str) -> str:
    """A name as long as those of a recipe's records."""
    return _file_name(datetime.now(UTC), recipe_name, "0" * 8)


def _file_name(started: datetime, recipe_name: object, run_id: str) -> str:
    recipe = _slug(str(recipe_name or ""))[:_LONGEST_NAME] or "unnamed"
    return f"{started:%Y%m%dT%H%M%SZ}-{recipe}-{_slug(run_id)[:8]}.json"


def machine_name(environment: Environment) -> str:
    """The folder of a machine's records: ``amd-epyc-2-cores-zen5-1f2e3d``.

    Its beginning can be guessed from the machine's name. The end is the digest of its `MachineKey`,
    after the processor's microarchitecture where that is known and trains: unlike machines of one
    name have two folders. Records before version 8 know the name only: ``amd-epyc-2-cores``.
    """
    device = _slug(_OMITTED_WORDS.sub(" ", environment.device_name))[:_LONGEST_NAME].strip("-")
    cores = environment.logical_cores
    words = [device or "unknown", f"{cores}-core{'' if cores == 1 else 's'}"]
    key = MachineKey.of(environment)
    if key.digest is not None:
        if key.microarchitecture is not None and environment.device_name == environment.cpu:
            words.append(_slug(key.microarchitecture)[:_LONGEST_NAME])
        words.append(key.digest)
    return "-".join(filter(None, words))


def to_json(record: RunRecord) -> str:
    """A record as its file holds it: every field, in the order of declaration, indented."""
    values = record.model_dump(mode="json")
    text = json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False)
    return encodable(text) + "\n"  # a word of the command line may hold bytes that are no text


def parse_record(path: Path, content: bytes) -> RunRecord | UnreadableFile:
    """The record that a file holds, or why it holds none."""
    value: object = None
    try:
        value = parse_json(content)
        record = RunRecord.model_validate(value)
    except ValidationError as error:
        return UnreadableFile(path, _invalid_reason(value, error))
    except ValueError as error:
        return UnreadableFile(path, shortened(str(error)))
    if "schema_version" not in record.model_fields_set:
        return UnreadableFile(path, _NO_VERSION)
    return record


def _slug(text: str) -> str:
    """Lower-case ASCII letters and digits, joined by single hyphens."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _invalid_reason(value: object, error: ValidationError) -> str:
    """What is wrong with a document that is not a record, in one line."""
    version = value.get("schema_version") if isinstance(value, dict) else None
    if version is None:
        return _NO_VERSION
    if version not in READABLE_VERSIONS:
        return (
            f"its schema_version is {printable(str(version))[:20]}; this mnist-bench reads "
            f"{READABLE_VERSIONS[0]} to {READABLE_VERSIONS[-1]}: use the version that wrote it, "
            "or a newer one"
        )
    first, *others = error.errors(include_url=False, include_input=False)
    location = ".".join(str(part) for part in first["loc"]) or "as a whole"
    more = f" (and {len(others)} more)" if others else ""
    return shortened(f"not a run record: {location}: {first['msg']}{more}")
