"""What the configs of all families share, and how a preset becomes one.

The config of a family has a section for each of its stages, under the stage's name.
"""

from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genai_core.config.base import Config
from genai_core.config.data import CollectConfig
from genai_core.config.presets import PRESETS, explain, merged, read_preset, read_yaml, set_value
from genai_core.config.release import PromoteConfig
from genai_core.config.runtime import Runtime
from genai_core.errors import InputError

FAMILY_PRESETS = ("laptop", "smoke")


class FamilyConfig(Config):
    """What every family has beside its own stages."""

    family: str
    """Name of the family."""
    runtime: Runtime = Runtime()
    collect: CollectConfig
    promote: PromoteConfig = PromoteConfig()


def load_family_config(model: type[FamilyConfig], family: str, presets: Path, preset: str,
                       overrides: dict[str, Any] | None = None) -> FamilyConfig:
    """The config of a family: its preset `laptop`, what `smoke` changes, then `overrides` (`stage.field` to value).

    `presets` is the YAML file of the family's presets. `preset` may also be the path of a YAML file: a whole config, as
    a run stores it, or what changes in the preset or file that it `extends`.
    Raises InputError, in one line that names the field, for anything that is not right.
    """
    values = read_preset(preset, {name: partial(_shipped, presets, name) for name in FAMILY_PRESETS})
    for dotted, value in (overrides or {}).items():
        set_value(values, dotted, value)
    if values.setdefault("family", family) != family:
        raise InputError(f"family: this is a config of {values['family']}, asked for was {family}")
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise InputError(explain(error, family, model)) from None


def _shipped(file: Path, preset: str) -> dict[str, Any]:
    presets = read_yaml(str(file))
    values = presets["laptop"] if preset == "laptop" else merged(presets["laptop"], presets["smoke"])
    values["collect"]["sources"] = _defined(values["collect"]["sources"])
    return values


def _defined(chosen: dict[str, dict[str, Any] | None]) -> dict[str, Any]:
    """The sources that a preset names, with their definitions from `sources.yaml` below what it says itself."""
    definitions = read_yaml(str(PRESETS / "families" / "sources.yaml"))
    return {name: merged(definitions.get(name, {}), values or {}) for name, values in chosen.items()}
