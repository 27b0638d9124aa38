"""What follows for a preset from a base from outside: the tokens of a model that it would have trained from noise are
not those of one that is trained further, which have to be given beside the base; nor are its learning rates."""

from typing import Any

from genai_core.config.addresses import is_in_mlflow

RATES = {"pretrain": 2e-5, "instruct": 2e-5, "reward": 1e-5, "rlhf": 5e-6}
"""Peak learning rates of AdamW for all weights of a pretrained base, which those of the dial, a hundred times as high
and meant for models of a few million weights that were trained here, would destroy."""
OF_ADAPTERS = 10
"""What they are multiplied by for adapters, which start at zero."""
OF_MATRICES = 25
"""What they are multiplied by for Muon, whose step on a matrix of n rows and columns has the norm √n where AdamW's has
n: about as far, for some six hundred of them."""


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


def rates_of_a_base(values: dict[str, Any]) -> dict[str, Any]:
    """Optimizers and learning rates for the base that the values name, where it is a pretrained one: in place of those
    of the dial, and below what the values say. A version that the registry has was trained here with the dial's own,
    but for one that `adopt` took in."""
    section = values.get("base")
    source = str(section.get("source") or "") if isinstance(section, dict) else ""
    if not names_a_base(values) or (is_in_mlflow(source) and "adopt" not in source):
        return {}
    found = {}
    for stage, rate in RATES.items():
        fields = values.get(stage)
        if isinstance(fields, dict) and fields.get("lora") is not None:
            rate *= OF_ADAPTERS
        found[stage] = {"optimizer": "adamw", "learning_rate": rate, "matrix_learning_rate": rate * OF_MATRICES}
    return found
