"""The combinations of a sweep: `stage.field=value,value` for each field that varies."""

from itertools import product
from typing import Any

import yaml

from genai_core.errors import InputError


def combinations(grid: list[str]) -> list[dict[str, Any]]:
    """`["a.b=1,2", "c.d=3"]` to `[{"a.b": 1, "c.d": 3}, {"a.b": 2, "c.d": 3}]`. Raises InputError for anything else."""
    axes: dict[str, list[Any]] = {}
    for text in grid:
        name, equals, values = text.partition("=")
        if not equals or not name.strip() or not values.strip():
            raise InputError(f"{text!r}: write it as stage.field=value,value")
        if name.strip() in axes:
            raise InputError(f"{name.strip()}: given twice; put all of its values after one =")
        try:
            axes[name.strip()] = [_number(yaml.safe_load(value)) for value in values.split(",")]
        except yaml.YAMLError:
            raise InputError(f"{text!r}: the values are not valid YAML") from None
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for text, since it has no point."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
