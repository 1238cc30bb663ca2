"""How Sphinx makes a site of the pages in the repository: `./scripts/site`.

The pages stay as they are read in the repository. What only a site needs is here, in `index.md` and
in the reference, which is made from the code.
"""

import re
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from reference import CommandHelp, RecordFields

ROOT = Path(__file__).resolve().parents[2]
COMMENT = re.compile(r"<!--.*?-->", re.DOTALL)
LINK = re.compile(r"\[([^\]]*)\]\(([^)#\s:]+)\)")

project = "mnist-bench"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/site/index"
include_patterns = ["*.md", "docs/**.md", "results/README.md", "results/studies/**.md"]
exclude_patterns = [".*"]
myst_heading_anchors = 4
autodoc_member_order = "bysource"
autodoc_typehints = "description"
default_role = "code"
smartquotes = False
highlight_language = "none"
html_theme = "furo"
html_title = project
html_extra_path = ["../run-record.schema.json"]
html_show_copyright = False
html_show_sphinx = False
html_static_path = ["static"]
html_css_files = ["wide.css"]
html_copy_source = False


def adapt(_: Any, name: str, source: list[str]) -> None:
    """Leave out what is no page: comments, which hold sources of numbers, and links to folders."""
    folder = (ROOT / name).parent

    def without_folder(link: re.Match[str]) -> str:
        return link[1] if (folder / link[2]).is_dir() else link[0]

    source[0] = LINK.sub(without_folder, COMMENT.sub("", source[0]))


def setup(app: Any) -> None:
    """Called by Sphinx."""
    app.connect("source-read", adapt)
    app.add_directive("command-help", CommandHelp)
    app.add_directive("record-fields", RecordFields)
