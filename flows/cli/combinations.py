"""What a sweep varies: `stage.field=value,value` for each field, or of a search `stage.field=low..high` too."""

import re
from itertools import product
from typing import Any

import yaml

from genai_core.errors import InputError

_RANGE = re.compile(r"([-+\d.e]+?)\.\.([-+\d.e]+)", re.IGNORECASE)


def combinations(grid: list[str]) -> list[dict[str, Any]]:
    """`["a.b=1,2", "c.d=3"]` to `[{"a.b": 1, "c.d": 3}, {"a.b": 2, "c.d": 3}]`. Raises InputError for anything else."""
    axes = fields(grid)
    for name, values in axes.items():
        if isinstance(values, dict):
            raise InputError(f"{name}: a range has no end of values; say how many to look for with --trials, and the "
                             "figure with --minimize or --maximize")
    return [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]


def fields(grid: list[str]) -> dict[str, Any]:
    """`["a.b=1,2", "c.d=1e-4..1e-2"]` to `{"a.b": [1, 2], "c.d": {"low": 1e-4, "high": 1e-2}}`. Raises InputError."""
    axes: dict[str, Any] = {}
    for text in grid:
        name, equals, values = text.partition("=")
        name = name.strip()
        if not equals or not name or not values.strip():
            raise InputError(f"{text!r}: write it as stage.field=value,value or stage.field=low..high")
        if name in axes:
            raise InputError(f"{name}: given twice; put all of its values after one =")
        try:
            if match := _RANGE.fullmatch(values.strip()):
                axes[name] = {"low": _number(yaml.safe_load(match[1])), "high": _number(yaml.safe_load(match[2]))}
                if not axes[name]["low"] < axes[name]["high"]:
                    raise InputError(f"{text}: the range has no room; the smaller number comes first")
            else:
                axes[name] = [_number(yaml.safe_load(value)) for value in values.split(",")]
        except yaml.YAMLError:
            raise InputError(f"{text!r}: the values are not valid YAML") from None
    return axes


def _number(value: Any) -> Any:
    """YAML 1.1 takes 1e-3 for text, since it has no point."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
