"""The documentation's site: built without a warning, whole, and complete without a network."""

from __future__ import annotations

import re
import subprocess
from html import unescape
from pathlib import Path

import pytest

from bench.cli.app import COMMANDS
from bench.records.json_schema import record_schema
from tests.commands import BIN, ROOT, launch

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ./scripts/site builds, in a folder of its own."""
    folder = tmp_path_factory.mktemp("site")
    command = (ROOT / "scripts" / "site").read_text().splitlines()[-1]
    assert command.endswith(' "$@" . .cache/site')
    options = command.removesuffix(' "$@" . .cache/site').split()[2:]
    done = launch([BIN / "sphinx-build", *options, "-d", folder / "trees", ".", folder / "pages"])
    assert (done.returncode, done.stderr) == (0, "")
    return folder / "pages"


def text(page: Path) -> str:
    return unescape(re.sub(r"<[^>]+>", "", page.read_text(encoding="utf-8")))


def test_every_page_of_the_repository_is_there(site: Path) -> None:
    command = ["git", "ls-files", "docs", "results/studies", ":(glob)*.md", "results/README.md"]
    listed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False
    ).stdout.split()
    names = [name for name in listed if name.endswith(".md")]
    assert names or not (ROOT / ".git").exists()
    for name in names:
        assert (site / name).with_suffix(".html").exists(), name


def test_the_reference_is_made_of_the_code(site: Path) -> None:
    commands = text(site / "docs" / "site" / "cli.html")
    assert all(f"Usage: mnist-bench {name}" in commands for name in COMMANDS)
    assert "--checkpoint-every" in commands
    assert "load(*paths, per='benchmark')" in text(site / "docs" / "site" / "api.html")
    schema = record_schema()
    records = text(site / "docs" / "site" / "record.html")
    for part in (schema, *schema["$defs"].values()):
        for field, values in part.get("properties", {}).items():
            assert field in records
            assert values["description"] in records
    assert (site / "run-record.schema.json").exists()


def test_it_asks_nobody_for_anything(site: Path) -> None:
    """Pictures, styles and programs are the site's own."""
    loads = re.compile(r"<(?:script|img|iframe)[^>]*\ssrc=\"([^\"]+)|<link[^>]*\shref=\"([^\"]+)")
    for page in site.rglob("*.html"):
        for found in loads.finditer(page.read_text(encoding="utf-8")):
            target = found[1] or found[2]
            assert not re.match(r"[a-z]+:|//", target) or target.startswith("data:"), target


def test_no_source_of_a_number_is_on_a_page(site: Path) -> None:
    assert "figures:" not in (site / "docs" / "results.html").read_text(encoding="utf-8")
