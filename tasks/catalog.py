"""Every stage and family that there is: those of this project, and those of installed packages.

A package brings a family by an entry point of the group `genai_core.families` that names its `Family`, and the kinds of
its models by entry points of the group `genai_core.kinds` (`genai_core/models/kinds.py`).
"""

from functools import cache
from importlib.metadata import entry_points

from genai_core.config.pipeline import PipelineConfig
from genai_core.errors import InputError
from genai_core.families.config import FamilyConfig
from tasks import families, language_model
from tasks.family import Family
from tasks.stage import Stage

FAMILIES: dict[str, Family] = {family.name: family for family in (
    *families.ALL, *(entry.load() for entry in entry_points(group="genai_core.families")))}


def stages_of(family: str) -> tuple[Stage, ...]:
    """Every stage of a family in the order in which they run; of the language model for an empty name, whose runs have
    those that their data allows."""
    return family_named(family).all_stages if family else language_model.STAGES


def stages_for(config: PipelineConfig | FamilyConfig) -> tuple[Stage, ...]:
    """The stages of a run in their order, each with the inputs and settings that it has there."""
    if isinstance(config, FamilyConfig):
        return stages_of(config.family)
    names = config.stage_names
    return tuple(stage.among(config.beside(stage.name)) for stage in language_model.STAGES if stage.name in names)


def family_named(family: str) -> Family:
    """The family of this name. Raises InputError when there is none."""
    if family not in FAMILIES:
        raise InputError(f"unknown family {family!r}; there are {', '.join(FAMILIES)}")
    return FAMILIES[family]


def find_stage(family: str, name: str) -> Stage:
    """A stage of a family, or of the language model. Raises InputError when there is none of this name."""
    for stage in stages_of(family):
        if stage.name == name:
            return stage
    raise InputError(f"unknown stage {name!r}; there are {', '.join(stage.name for stage in stages_of(family))}")


@cache
def lasting_stages() -> dict[str, Stage]:
    """The stages whose artifacts a model can come from, by name: all datasets and models. Names are unique there."""
    every = [*language_model.STAGES, *(stage for family in FAMILIES.values() for stage in family.stages)]
    return {stage.name: stage for stage in every if stage.kind != "report"}


def model_stages() -> dict[str, Stage]:
    """The stages that make models, by name."""
    return {name: stage for name, stage in lasting_stages().items() if stage.kind == "model"}
