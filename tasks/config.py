"""The config of a run as a user asks for it: a preset, what differs from it, and a look into the user's own files."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from genai_core.config.data import FileSource
from genai_core.config.pipeline import STAGE_NAMES, PipelineConfig, load_pipeline
from genai_core.data.sources.kinds import Kind, kinds_of_files, recognise_content
from genai_core.data.sources.paths import Located
from genai_core.errors import InputError
from genai_core.families.config import FamilyConfig
from genai_core.roots import require_allowed
from tasks.catalog import family_named, stages_for
from tasks.registry.data_sources import with_base, with_files
from tasks.registry.files import resolve
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking


def load_config(preset: str, family: str, overrides: dict[str, Any]) -> PipelineConfig | FamilyConfig:
    """The config of a language model or of a family; of files whose content is not declared, a look tells it.

    What a source names in MLflow is brought to the workspace, and the source reads those files from then on.
    """
    config = family_named(family).load(preset, overrides) if family else load_pipeline(preset, overrides, recognise)
    sources = {name: with_files(source, name) if isinstance(source, FileSource) and source.enabled else source
               for name, source in config.collect.sources.items()}
    changed: dict[str, Any] = {"collect": config.collect.model_copy(update={"sources": sources})}
    if isinstance(config, PipelineConfig) and config.base.given:
        changed["base"] = with_base(config.base)
    config = config.model_copy(update=changed)
    return _with_outside_of_evaluate(config) if isinstance(config, PipelineConfig) else config


def _with_outside_of_evaluate(config: PipelineConfig) -> PipelineConfig:
    """The config with the directory, from the workspace on, of a judge that the registry holds, since aliases move.
    What it names of this machine must be allowed, and there where the run evaluates."""
    judge = config.evaluate.judge
    if judge.model.startswith("models:/"):
        if not tracking.is_there():
            raise InputError(f"evaluate.judge.model: {judge.model}: there is no MLflow yet, neither a server "
                             "(MLFLOW_TRACKING_URI) nor a database of this workspace")
        directory = resolve(judge.model).relative_to(Workspace.current().root)
        judge = judge.model_copy(update={"model": directory.as_posix()})
    elif judge.model:
        require_allowed(Workspace.current().root / Path(judge.model).expanduser(), "evaluate.judge.model")
    if folder := config.evaluate.lm_eval.folder:
        require_allowed(Workspace.current().root / Path(folder).expanduser(), "evaluate.lm_eval.folder")
    evaluate = config.evaluate.model_copy(update={"judge": judge})
    if "evaluate" in config.stage_names and (judge.model or evaluate.lm_eval.tasks):
        from genai_core.evaluation.outside import require_outside

        require_outside(evaluate, Workspace.current().root)
    return config.model_copy(update={"evaluate": evaluate})


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
