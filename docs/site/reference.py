"""Pages of the reference that are made from the code: what commands take, what records hold."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Iterator
from typing import Any

from docutils import nodes
from docutils.parsers.rst import Directive

from bench.cli import main as bench_main
from bench.cli.app import COMMANDS
from bench.records.json_schema import record_schema
from mnist_cnn.__main__ import main as workload_main

WORKLOAD_COMMANDS = ("train", "predict", "summary", "export")
COLUMNS = "88"


def help_of(program: Any, *words: str) -> str:
    """What a command prints of itself."""
    os.environ["COLUMNS"] = COLUMNS
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = program([*words, "--help"])
    if status != 0:
        raise RuntimeError(f"{words}: --help ends with {status}")
    return said.getvalue()


class CommandHelp(Directive):
    """The help of every command, each in a section of its own."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        programs = (("mnist-bench", bench_main, COMMANDS),)
        programs += (("python -m mnist_cnn", workload_main, WORKLOAD_COMMANDS),)
        return [
            _section(f"{name} {command}", [_block(help_of(program, command))])
            for name, program, commands in programs
            for command in commands
        ]


class RecordFields(Directive):
    """The fields of a record, a section for each of its parts."""

    def run(self) -> list[nodes.Node]:
        """Called by Sphinx."""
        schema = record_schema()
        parts = {schema["title"]: schema} | schema["$defs"]
        return [
            _section(name, [nodes.paragraph(text=part["description"]), _fields(part)])
            for name, part in parts.items()
            if "properties" in part
        ]


def _section(title: str, content: list[nodes.Node]) -> nodes.section:
    name = nodes.make_id(title)
    section = nodes.section(ids=[name], names=[name])
    section += nodes.title(text=title)
    section.extend(content)
    return section


def _block(text: str) -> nodes.literal_block:
    block = nodes.literal_block(text, text)
    block["language"] = "none"
    return block


def _fields(part: dict[str, Any]) -> nodes.definition_list:
    fields = nodes.definition_list()
    for name, values in part["properties"].items():
        term = nodes.term()
        term += nodes.literal(text=name)
        term += nodes.Text(f": {' or '.join(_types(values))}")
        if name not in part.get("required", ()):
            term += nodes.Text(", optional")
        sentence = nodes.paragraph(text=values["description"])
        fields += nodes.definition_list_item("", term, nodes.definition("", sentence))
    return fields


def _types(values: dict[str, Any]) -> Iterator[str]:
    """The types of a value, in words."""
    for one in values.get("anyOf", [values]):
        if "$ref" in one:
            yield one["$ref"].rpartition("/")[2]
        elif "enum" in one or "const" in one:
            yield " or ".join(f'"{word}"' for word in one.get("enum", [one.get("const")]))
        elif one.get("type") == "array":
            yield f"array of {' or '.join(_types(one['items']))}"
        elif "type" in one:
            yield one.get("format", one["type"])
        else:
            yield "any value"
