"""The JSON Schema of a record, with a sentence for every field, made from the models."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from typing import Any

from bench.records.schema import SCHEMA_VERSION, Model, RunRecord

DIALECT = "https://json-schema.org/draft/2020-12/schema"


def record_schema() -> dict[str, Any]:
    """The schema of the version that is written; older versions lack fields that have defaults.

    It cannot say all that reading checks: that summaries equal the raw measurements, for one.
    """
    schema = RunRecord.model_json_schema()
    models = {model.__name__: model for model in _models(Model)}
    for name, definition in ((RunRecord.__name__, schema), *schema["$defs"].items()):
        model = models.get(name)
        if model is None:  # an enumeration
            continue
        for field, sentence in _field_docstrings(model).items():
            if field in definition["properties"]:
                definition["properties"][field].setdefault("description", sentence)
    identity = f"urn:mnist-bench:run-record:{SCHEMA_VERSION}"
    return {"$schema": DIALECT, "$id": identity, "version": SCHEMA_VERSION} | schema


def _models(base: type[Model]) -> Iterator[type[Model]]:
    for model in base.__subclasses__():
        yield model
        yield from _models(model)


def _field_docstrings(model: type[Model]) -> dict[str, str]:
    """The text below each field of a model and of its bases, in one line."""
    found: dict[str, str] = {}
    for kind in reversed(model.__mro__):
        if not issubclass(kind, Model) or kind is Model:
            continue
        (definition,) = ast.parse(inspect.getsource(kind)).body
        assert isinstance(definition, ast.ClassDef)
        for field, text in zip(definition.body, definition.body[1:], strict=False):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(sentence))),
                ):
                    found[name] = " ".join(sentence.split())
    return found
