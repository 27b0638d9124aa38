"""The curves of a training run, kept beside the model that it made."""

import json
from pathlib import Path

Curves = dict[str, list[tuple[int, float | None]]]
"""Points (step, value) of each curve; None where the value was not finite, as in a skipped step."""


def save_curves(curves: Curves, out_dir: Path) -> None:
    """Write `curves.json`: the name of each curve and its points [step, value]."""
    (out_dir / "curves.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")


def read_curves(directory: Path) -> dict[str, list[tuple[int, float]]]:
    """Finite points of each curve in `curves.json`; a curve without any is left out."""
    curves = json.loads((directory / "curves.json").read_text(encoding="utf-8"))
    return {name: points for name, all_points in curves.items() if (points := finite(all_points))}


def finite(points: list[tuple[int, float | None]]) -> list[tuple[int, float]]:
    return [(step, value) for step, value in points if value is not None]


def last_values(curves: Curves, prefix: str) -> dict[str, float]:
    """Last value of each curve whose name begins with `prefix`: of the final model, so NaN where it is not finite."""
    last = {name: points[-1][1] for name, points in curves.items() if name.startswith(prefix)}
    return {name: float("nan") if value is None else value for name, value in last.items()}
