"""The comparison of two models as one HTML page with a chart."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader

from genai_core.pictures import as_base64, figure_and_axes
from tasks.comparison import Comparison
from tasks.tables import shown


def write_page(comparison: Comparison, path: Path) -> Path:
    """Write the page; text of models is escaped."""
    path.parent.mkdir(parents=True, exist_ok=True)
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("comparison.html.jinja").render(comparison=comparison, shown=shown,
                                                                    chart=_chart(comparison))
    path.write_text(page, encoding="utf-8")
    return path.resolve()


def _chart(comparison: Comparison) -> str:
    """Relative differences with their intervals, as a PNG in base64."""
    lines = [line for line in comparison.lines if line.low is not None and line.first]
    figure, axes = figure_and_axes(8, 1 + 0.4 * max(1, len(lines)))
    for row, line in enumerate(lines):
        assert line.low is not None and line.high is not None
        scale = 100 / abs(line.first)
        colour = "tab:gray" if line.verdict == "within the noise" else "tab:blue"
        axes.plot([line.low * scale, line.high * scale], [row, row], color=colour, linewidth=3, alpha=0.5)
        axes.plot([line.difference * scale], [row], "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(lines)), [line.figure for line in lines])
    axes.invert_yaxis()
    axes.set_xlabel(f"difference of {comparison.second} from {comparison.first}, % (bars: 95 % interval)")
    axes.grid(axis="x", alpha=0.3)
    return as_base64(figure)
