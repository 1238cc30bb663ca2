"""Which version of this package the code is. Needs no installed packages."""

from __future__ import annotations

import tomllib
from importlib import metadata
from pathlib import Path

from bench.machine.repository import PROJECT
from bench.records.machine import PACKAGE


def package_version(project: Path = PROJECT) -> str | None:
    """Version of the package whose code lies in a folder; None where nothing there says it.

    A checkout has `pyproject.toml`, an installed copy its metadata beside it. Metadata of any other
    folder may be of another copy.
    """
    return _source_version(project) or next(
        (one.version for one in metadata.distributions(name=PACKAGE, path=[str(project)])), None
    )


def _source_version(project: Path) -> str | None:
    """The version in the folder's `pyproject.toml`; None without one, and if it is another's."""
    try:
        values = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
        return str(values["version"]) if values["name"] == PACKAGE else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
