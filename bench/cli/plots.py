"""`mnist-bench report --plots`: the figures of a report as files, for a paper or a slide."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from bench.export import drawing
from bench.export.figures import Drawing, Outcome
from bench.notation import inert
from mnist_cnn.errors import UsageError


def write_plots(outcomes: Sequence[Outcome], folder: Path) -> None:
    """Each figure as SVG and PNG, over what was there; says on stderr which there is no data for.

    Raises:
        UsageError: they cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for one in outcomes:
            if not isinstance(one, Drawing):
                print(f"mnist-bench: no figure {one.title!r}: {one.reason}", file=sys.stderr)
                continue
            svg = drawing.to_svg(one.figure, one.name, one.title, one.description, alone=True)
            (folder / f"{one.name}.svg").write_bytes(svg.encode())
            (folder / f"{one.name}.png").write_bytes(drawing.to_png(one.figure))
    except OSError as error:
        raise UsageError(
            f"cannot write figures to {inert(str(folder))}: {error.strerror or error}"
        ) from error
