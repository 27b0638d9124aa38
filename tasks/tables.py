"""Nested values as flat ones, and flat ones as Markdown tables."""

from typing import Any


def flatten(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"a": {"b": 1}}` to `{"a.b": 1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def markdown_table(header: list[str], rows: list[list[Any]]) -> list[str]:
    """Lines of a table; numbers are rounded to four significant digits."""
    lines = [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}"]
    return lines + [f"| {' | '.join(map(shown, row))} |" for row in rows]


def shown(value: Any) -> str:
    if isinstance(value, float):
        value = 0.0 if abs(value) <= 1e-12 else value      # what is left of a sum that is zero; not a number stays that
        return f"{value:,.0f}" if abs(value) >= 10_000 else f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value).replace("|", "\\|")
