"""The config of a run as a user asks for it: a preset, what differs from it, and a look into the user's own files."""

from collections.abc import Iterable
from typing import Any

from genai_core.config.pipeline import STAGE_NAMES, PipelineConfig, load_pipeline
from genai_core.errors import InputError
from genai_core.families.config import FamilyConfig
from genai_core.stages.collect import recognise_content
from tasks.catalog import family_named, stages_for
from tasks.store.workspace import Workspace


def load_config(preset: str, family: str, overrides: dict[str, Any]) -> PipelineConfig | FamilyConfig:
    """The config of a language model or of a family; of files whose content is not declared, a look tells it."""
    if family:
        return family_named(family).load(preset, overrides)
    root = Workspace.current().root

    def recognise(name: str, fields: dict[str, Any]) -> tuple[str, bool]:
        return recognise_content(name, fields, root)

    return load_pipeline(preset, overrides, recognise)


def require_stages(option: str, stages: Iterable[str], config: PipelineConfig | FamilyConfig) -> None:
    """Raises InputError for a stage that the run does not have, and tells why it has none."""
    names = [stage.name for stage in stages_for(config)]
    for stage in stages:
        if not stage or stage in names:
            continue
        reason = config.why_not(stage) if isinstance(config, PipelineConfig) and stage in STAGE_NAMES else ""
        if reason:
            raise InputError(f"{option}: this run has no stage {stage}: {reason}")
        raise InputError(f"{option}: unknown stage {stage!r}; there are {', '.join(names)}")
