"""Charts and grids of images as PNG files, drawn without a screen."""

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor


def figure_and_axes(width: float, height: float, rows: int = 1, columns: int = 1) -> tuple[Any, Any]:
    """A matplotlib figure of `width` × `height` inches and its axes: one, or an array of them."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=(width, height), dpi=110)


def save_picture(figure: Any, path: Path) -> None:
    """Write the figure as a PNG, the same for the same figure, and close it."""
    from matplotlib import pyplot

    figure.tight_layout()
    figure.savefig(path, format="png", metadata={"Software": None})
    pyplot.close(figure)


def as_base64(figure: Any) -> str:
    """The figure as a PNG in base64, as a page holds it; it is closed."""
    buffer = io.BytesIO()
    save_picture(figure, buffer)      # type: ignore[arg-type]  # matplotlib takes both
    return base64.b64encode(buffer.getvalue()).decode()


def save_grid(images: Tensor, path: Path, columns: int, row_names: Sequence[str] = (), title: str = "") -> None:
    """Images (N, 1, H, W) from 0 to 1 in rows of `columns`, black on white as ink is; names beside the rows."""
    save_picture(_grid(images, columns, row_names, title), path)


def grid_as_base64(images: Tensor) -> str:
    """Images in one row, as a PNG in base64."""
    return as_base64(_grid(images, len(images), (), ""))


def _grid(images: Tensor, columns: int, row_names: Sequence[str], title: str) -> Any:
    count, _, height, width = images.shape
    rows = -(-count // columns)
    left = 0.12 * max((len(name) for name in row_names), default=0)
    figure, axes = figure_and_axes(0.42 * columns + left + 0.2, 0.42 * rows + (0.4 if title else 0.1))
    canvas = images.new_zeros(rows * height, columns * width)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        canvas[row * height:(row + 1) * height, column * width:(column + 1) * width] = image[0]
    axes.imshow(1 - canvas.cpu().numpy(), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([(row + 0.5) * height for row in range(len(row_names))], list(row_names), fontsize=8)
    axes.tick_params(length=0)
    if title:
        axes.set_title(title, fontsize=9)
    return figure
