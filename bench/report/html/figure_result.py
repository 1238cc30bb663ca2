"""A figure of the report: drawn, or missing with the reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True, slots=True)
class DrawnFigure:
    """A figure with its texts."""

    name: str
    """File name for --plots, without suffix: letters and hyphens."""
    title: str
    """Heading above the figure."""
    caption: str
    """Explanation below the figure."""
    description: str
    """What the figure shows, for readers who cannot see it."""
    figure: Figure
    """The drawing, by Matplotlib."""


@dataclass(frozen=True, slots=True)
class MissingFigure:
    """A figure that the records have no data for."""

    title: str
    """Heading that the figure would have."""
    reason: str
    """Why it is missing; continues the title, without a full stop."""


FigureResult = DrawnFigure | MissingFigure
