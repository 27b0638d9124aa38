"""One run of a flow: its config, what it has made so far, and the requests by which its stages are executed."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, TypeAdapter

from genai_core.config.pipeline import DERIVED, PipelineConfig
from genai_core.config.runtime import Runtime
from genai_core.families.config import FamilyConfig
from tasks.catalog import family_named, find_stage, stages_for
from tasks.stage import Stage
from tasks.store.artifacts import Artifact, KeyParts, Store
from tasks.store.key import key_parts
from tasks.store.workspace import Workspace


class RunIdentity(BaseModel):
    """Which run asks for a stage: what records, tags and pages tell of where an artifact comes from."""

    model_config = ConfigDict(frozen=True)

    flow_run_id: str = ""
    parent_run_id: str = ""
    """The MLflow run below which the stage's run appears."""
    commit: str = ""
    command: str = ""
    """What a user types to start the same run."""
    dataset_md5: str = ""
    """The md5 by which `data.dvc` knows the datasets."""


class StageRequest(BaseModel):
    """All that executing one stage takes, small and without a tie to this process: as JSON, another one can do it."""

    model_config = ConfigDict(frozen=True)

    family: str
    """Name of the family; empty for the language model."""
    parts: KeyParts
    """The key, with the settings and the digests of the inputs in it."""
    inputs: dict[str, Artifact]
    in_service: dict[str, Artifact] = {}
    """Models of the release in service that the stage is held against, by their stages."""
    runtime: Runtime
    workspace: Path
    identity: RunIdentity
    force: bool = False
    """Execute although the artifact is there."""
    stop_at: float | None = None
    """When to save a checkpoint and stop, in seconds since the epoch: the run's budget is spent then."""

    @property
    def stage(self) -> Stage:
        return find_stage(self.family, self.parts.stage).among(self.inputs)

    def arguments(self) -> dict[str, Any]:
        """The arguments of the core's `run` that come from the config, `config` included."""
        model: type[BaseModel] = family_named(self.family).config_class if self.family else PipelineConfig
        return {argument: TypeAdapter(_type_of(name, model)).validate_python(self.parts.config[name])
                for argument, name in self.stage.settings.items()}


def _type_of(name: str, model: Any) -> Any:
    """The type of `section`, of `section.field`, or of what follows from a config."""
    if name in DERIVED:
        return DERIVED[name]
    for part in name.split("."):
        model = model.model_fields[part].annotation
    return model


@dataclass
class PipelineRun:
    """What later stages of a run need to know of it and of earlier ones."""

    config: PipelineConfig | FamilyConfig
    workspace: Workspace
    force: frozenset[str] = frozenset()
    """Stages to execute although their artifacts are there."""
    until: str = ""
    """The last stage to run; empty for all."""
    command: str = ""
    """What a user types to start the same run."""
    flow_run_id: str = ""
    parent_run_id: str = ""
    commit: str = ""
    dataset_md5: str = ""
    """The md5 by which `data.dvc` knows the datasets."""
    stop_at: float | None = None
    """When its budget is spent, in seconds since the epoch."""
    began: float = field(default_factory=time.monotonic)
    held_against: str | None = None
    """Name of the release that the gates hold the run against; empty where none is in service, None before they do."""
    states: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store.of(self.workspace)

    @property
    def family(self) -> str:
        """Name of the family; empty for the language model."""
        return self.config.family if isinstance(self.config, FamilyConfig) else ""

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the run, each with the inputs that it has there."""
        return stages_for(self.config)

    @property
    def identity(self) -> RunIdentity:
        return RunIdentity(flow_run_id=self.flow_run_id, parent_run_id=self.parent_run_id, commit=self.commit,
                           command=self.command, dataset_md5=self.dataset_md5)

    def request(self, stage: Stage, in_service: dict[str, Artifact] | None = None) -> StageRequest:
        """How to execute a stage whose inputs are there, and the models that it is held against."""
        inputs = {name: self.artifacts[name] for name in stage.input_stages}
        parts = key_parts(stage, self.config, inputs, self.workspace, in_service)
        return StageRequest(family=self.family, parts=parts, inputs=inputs, in_service=in_service or {},
                            runtime=self.config.runtime, workspace=self.workspace.root, identity=self.identity,
                            force=stage.name in self.force, stop_at=self.stop_at)
