"""The config of a run as a user asks for it: a preset, what differs from it, and a look into the user's own files."""

from collections.abc import Iterable
from typing import Any

from pydantic import ValidationError

from genai_core.config.data import FileSource
from genai_core.config.pipeline import STAGE_NAMES, PipelineConfig, load_pipeline
from genai_core.data.sources.kinds import Kind, kinds_of_files, recognise_content
from genai_core.data.sources.paths import Located
from genai_core.errors import InputError
from genai_core.families.config import FamilyConfig
from tasks.catalog import family_named, stages_for
from tasks.registry.data_sources import with_files
from tasks.store.workspace import Workspace


def load_config(preset: str, family: str, overrides: dict[str, Any]) -> PipelineConfig | FamilyConfig:
    """The config of a language model or of a family; of files whose content is not declared, a look tells it.

    What a source names in MLflow is brought to the workspace, and the source reads those files from then on.
    """
    config = family_named(family).load(preset, overrides) if family else load_pipeline(preset, overrides, recognise)
    sources = {name: with_files(source, name) if isinstance(source, FileSource) and source.enabled else source
               for name, source in config.collect.sources.items()}
    return config.model_copy(update={"collect": config.collect.model_copy(update={"sources": sources})})


def recognise(name: str, fields: dict[str, Any]) -> tuple[str, bool]:
    """The kind of content of a source of files, by its name and its fields, and whether it is conversations."""
    try:
        source = FileSource.model_validate(fields)
    except ValidationError:
        return "documents", False      # what is wrong with it is said where the whole config is checked
    return recognise_content(name, with_files(source, name), Workspace.current().root)


def kinds_in(name: str, fields: dict[str, Any]) -> dict[Kind, list[Located]]:
    """The files of a source by their kind of content; none where its fields are wrong, as for `recognise`."""
    try:
        source = FileSource.model_validate(fields)
    except ValidationError:
        return {}
    return kinds_of_files(name, source, Workspace.current().root)


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
