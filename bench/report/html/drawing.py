"""Matplotlib figures as SVG, for light and dark backgrounds, and as PNG.

Matplotlib writes fixed colours and style attributes. A colour fits one background only, and a page
with a strict Content-Security-Policy refuses style attributes. Here each style becomes presentation
attributes, and each colour of the palette a CSS variable. The SVG holds no date and no random name:
the same records give the same bytes.
"""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WIDTH = 384.0
"""Width of every figure, in CSS pixels: a phone shows it almost without shrinking it."""
FONT = 11.5
"""Size of the text in figures, in CSS pixels."""

INK, MUTED, FAINT, GROUND, ACCENT = "#16202c", "#556070", "#d5dae1", "#fdfdfd", "#b3261e"
SERIES = (
    *("#1d5fc4", "#b4540a", "#1f7a3d", "#7a3fb0"),
    *("#b02a6f", "#0d7377", "#7a5c00", "#4a5a9a"),
)
"""Colours of families of set-ups; further families are drawn in `OTHER`."""
OTHER = "#8b94a1"
SPENT = ("#7c8696", "#aab3c0", "#5d8fd9", "#1d5fc3", "#d07a2d", "#7a5bb5", "#c9ced6")
"""Colours of `bench.analysis.timing_rules.Span`, in its order."""

_DARK_SERIES = (
    *("#7fb0ff", "#ffa45c", "#6fd08c", "#c8a0f5"),
    *("#ff8fc4", "#56cfd2", "#e0bf4a", "#a7b5ef"),
)
_DARK_SPENT = ("#8c97a6", "#5f6975", "#4d7fc9", "#8bb8ff", "#e8954a", "#b79cf0", "#49525e")
_DARK = {
    INK: "#e8ecf2",
    MUTED: "#a3adba",
    FAINT: "#39424e",
    GROUND: "#171c22",
    ACCENT: "#ff8a80",
    OTHER: "#7d8794",
    **dict(zip(SERIES, _DARK_SERIES, strict=True)),
    **dict(zip(SPENT, _DARK_SPENT, strict=True)),
}
_NAMES = {
    INK: "ink",
    MUTED: "muted",
    FAINT: "faint",
    GROUND: "ground",
    ACCENT: "accent",
    OTHER: "other",
    **{colour: f"series-{number}" for number, colour in enumerate(SERIES, start=1)},
    **{colour: f"spent-{number}" for number, colour in enumerate(SPENT, start=1)},
}

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_FONT = re.compile(r"^(?:(?P<weight>bold|\d{3}) )?(?P<size>[\d.]+)px ")
_KEPT = frozenset({
    *("clip-path", "fill", "fill-opacity", "fill-rule", "font-size", "font-weight", "opacity"),
    *("stroke", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin"),
    *("stroke-opacity", "stroke-width", "text-anchor", "visibility"),
})  # fmt: skip
"""Style properties that are also presentation attributes."""
_STYLE: dict[Any, Any] = {
    "axes.edgecolor": MUTED,
    "axes.labelcolor": MUTED,
    "axes.labelsize": FONT,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.axisbelow": True,
    "figure.dpi": 72,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "font.size": FONT,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "path.simplify": True,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "svg.hashsalt": "mnist-bench",
    "text.color": INK,
    "text.parse_math": False,  # otherwise a label's dollar signs would start a formula
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": FONT - 1,
    "ytick.labelsize": FONT - 1,
}


def variables(dark: bool) -> str:
    """The palette as CSS declarations, for a dark or a light background."""
    return " ".join(
        f"--{name}: {_DARK[colour] if dark else colour};" for colour, name in _NAMES.items()
    )


def colour_of(number: int) -> str:
    """The colour of a colour group of set-ups, from 1; 0 is the colour of all others."""
    return SERIES[number - 1] if number else OTHER


@contextmanager
def style() -> Iterator[None]:
    """Matplotlib's settings, to be in force while a figure is made or written."""
    import matplotlib

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A label may hold letters that Matplotlib's own font lacks; the reader's fonts have them.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        yield


def new_figure(height: float) -> Figure:
    """An empty figure, `WIDTH` wide and `height` CSS pixels high; to be made within `style`."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72))
    FigureCanvasAgg(figure)  # figures are files: they need no window, whatever the user has set
    return figure


def to_png(figure: Figure) -> bytes:
    """The figure in its light colours, with three pixels per CSS pixel."""
    stream = io.BytesIO()
    with style():
        figure.savefig(
            stream, format="png", dpi=216, facecolor="#ffffff", metadata={"Software": None}
        )
    return stream.getvalue()


def to_svg(figure: Figure, name: str, title: str, description: str, *, alone: bool) -> str:
    """The figure as an SVG element whose colours are the variables of `variables`.

    Args:
        figure: a figure made within `style`.
        name: letters, digits and hyphens; unique on its page.
        title: title that screen readers read out.
        description: what the figure shows; screen readers read it out.
        alone: whether the SVG is a file of its own, and so holds the variables itself; a page
            holds them for all its figures.
    """
    stream = io.StringIO()
    with style():
        figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None, "Type": None})
    root = ElementTree.fromstring(stream.getvalue())
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style"):
                parent.remove(child)
    _rename(root, name)
    for element in root.iter():
        _plain_attributes(element)
    for attribute in ("width", "height", "version"):
        root.attrib.pop(attribute, None)
    root.attrib |= {
        "font-family": "system-ui, sans-serif",
        "stroke-linejoin": "round",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-description",
    }
    labels = [("title", title), ("desc", description)]
    for index, (tag, text) in enumerate(labels):
        label = ElementTree.Element(f"{{{_SVG}}}{tag}")
        label.set("id", f"{name}-{'title' if tag == 'title' else 'description'}")
        label.text = text
        root.insert(index, label)
    if alone:
        root.insert(2, _palette_style())
    return _serialize(root)


def _palette_style() -> ElementTree.Element:
    element = ElementTree.Element(f"{{{_SVG}}}style")
    element.text = (
        f":root {{ {variables(dark=False)} }} "
        f"@media (prefers-color-scheme: dark) {{ :root {{ {variables(dark=True)} }} }}"
    )
    return element


def _serialize(root: ElementTree.Element) -> str:
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", "http://www.w3.org/1999/xlink")
    return ElementTree.tostring(root, encoding="unicode")


def _rename(root: ElementTree.Element, name: str) -> None:
    """Prefix ids with the figure's name, and remove ids that nothing refers to."""
    text = " ".join(value for element in root.iter() for value in element.attrib.values())
    referenced = set(re.findall(r"#([\w.:-]+)", text))
    for element in root.iter():
        old_id = element.attrib.pop("id", None)
        if old_id in referenced:
            element.set("id", f"{name}-{old_id}")
        for key, value in element.attrib.items():
            if key == _XLINK or "url(#" in value:
                element.set(key, value.replace("#", f"#{name}-", 1))


def _plain_attributes(element: ElementTree.Element) -> None:
    """Replace an element's style by attributes, and its colours by variables."""
    for declaration in element.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font" and (font := _FONT.match(value)):
            element.set("font-size", font["size"])
            if font["weight"]:
                element.set("font-weight", font["weight"])
        elif key in _KEPT:
            element.set(key, value)
    for key in ("fill", "stroke"):
        colour = element.get(key, "").lower()
        if colour in _NAMES:
            element.set(key, f"var(--{_NAMES[colour]})")
