"""How Sphinx makes the documentation's site of the pages that people read in the repository."""

project = "mnist-bench"
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "docs/site/index"
include_patterns = [
    "*.md",
    "docs/**.md",
    "results/README.md",
    "results/studies/**.md",
]
exclude_patterns = [".*", "**/node_modules"]
myst_heading_anchors = 4
html_theme = "furo"
html_title = project
