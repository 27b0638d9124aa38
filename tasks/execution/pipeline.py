"""One run of the flow: its config, and what later stages need to know of earlier ones."""

import time
from dataclasses import dataclass, field

from genai_core.config.pipeline import PipelineConfig
from genai_core.families.config import FamilyConfig
from tasks.store.artifacts import Artifact, Store
from tasks.store.workspace import Workspace


@dataclass
class PipelineRun:
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
    began: float = field(default_factory=time.monotonic)
    states: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store.of(self.workspace)
