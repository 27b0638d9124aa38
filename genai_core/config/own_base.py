"""What follows for a preset from a base from outside: the tokens of a model that it would have trained from noise are
not those of one that is trained further, which have to be given beside the base."""

from typing import Any


def names_a_base(values: dict[str, Any]) -> bool:
    """Whether a preset, or `stage.field` overrides, name a base from outside."""
    section = values.get("base")
    named = section if isinstance(section, dict) else {}
    return any(named.get(field) or values.get(f"base.{field}") for field in ("source", "packages"))


def without_its_tokens(values: dict[str, Any]) -> dict[str, Any]:
    """A preset without what it says of training from noise."""
    pretrain = values.get("pretrain")
    if not isinstance(pretrain, dict):
        return values
    return {**values, "pretrain": {name: value for name, value in pretrain.items() if name != "tokens"}}


def with_a_base(values: dict[str, Any], said: dict[str, Any]) -> dict[str, Any]:
    """The values, of which `said` come from the preset and the overrides and the others from the dial, with whether a
    base is trained further filled in."""
    pretrain, section = said.get("pretrain"), values.get("base")
    if not names_a_base(values) or not isinstance(section, dict):
        return values
    continued = isinstance(pretrain, dict) and pretrain.get("tokens") is not None
    return {**values, "base": {**section, "continued": section.get("continued", continued)}}
