"""Charts as PNG in base64: how a page holds them."""

import base64
import io
from typing import Any


def figure_and_axes(width: float, height: float) -> tuple[Any, Any]:
    """A matplotlib figure with one pair of axes, in inches, drawn without a screen."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(figsize=(width, height), dpi=110)


def as_base64(figure: Any) -> str:
    """The figure as a PNG in base64; it is closed."""
    from matplotlib import pyplot

    figure.tight_layout()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    pyplot.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
