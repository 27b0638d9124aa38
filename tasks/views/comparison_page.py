"""The comparison of two models as one HTML page with a chart."""

from pathlib import Path

import numpy as np
from jinja2 import Environment, FileSystemLoader

from genai_core.pictures import as_base64, figure_and_axes
from tasks.tables import shown
from tasks.views.comparison import NOISE, Comparison


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write the page; text of models is escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("comparison.html.jinja").render(comparison=comparison, shown=shown,
                                                                    chart=_chart(comparison))
    path.write_text(page, encoding="utf-8")
    return path.resolve()


def _chart(comparison: Comparison) -> str:
    """Differences with their intervals, as a PNG in base64; empty without any.

    Each figure has a scale of its own with zero in the middle: bits, shares and rewards have no unit in common, and a
    reward near zero has no percentage.
    """
    lines = [line for line in comparison.lines if line.low is not None]
    if not lines:
        return ""
    colours = {NOISE: "tab:gray", f"{comparison.second} is better": "tab:blue",
               f"{comparison.first} is better": "tab:orange"}
    figure, rows = figure_and_axes(8, 0.6 + 0.45 * len(lines), rows=len(lines))
    for axes, line in zip(np.atleast_1d(rows), lines, strict=True):
        assert line.low is not None and line.high is not None
        colour = colours[line.verdict]
        axes.plot([line.low, line.high], [0, 0], color=colour, linewidth=4, alpha=0.5)
        axes.plot([line.difference], [0], "o", color=colour)
        axes.axvline(0, color="black", linewidth=0.8)
        reach = 1.15 * max(abs(line.low), abs(line.high)) or 1
        axes.set_xlim(-reach, reach)
        axes.set_yticks([0], [line.figure])
        axes.tick_params(labelsize=8, length=0)
        axes.locator_params(axis="x", nbins=5)
        axes.grid(axis="x", alpha=0.3)
    figure.supxlabel(f"{comparison.second} minus {comparison.first}, with 95 % interval "
                     f"(blue: {comparison.second} is better, orange: {comparison.first}, grey: noise)", fontsize=8)
    return as_base64(figure)
