"""The curves of a training run, kept beside the model that it made."""

import json
from pathlib import Path

Curves = dict[str, list[tuple[int, float]]]
"""Points (step, value) of each curve."""


def save_curves(curves: Curves, out_dir: Path) -> None:
    """Write `curves.json`: the name of each curve and its points [step, value]."""
    (out_dir / "curves.json").write_text(json.dumps(curves) + "\n", encoding="utf-8")


def last_values(curves: Curves, prefix: str) -> dict[str, float]:
    """Last value of each curve whose name begins with `prefix`."""
    return {name: points[-1][1] for name, points in curves.items() if name.startswith(prefix)}
