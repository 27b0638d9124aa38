"""One run of the flow: its config, and what later stages need to know of earlier ones."""

from dataclasses import dataclass, field

from genai_core.config.pipeline import PipelineConfig
from tasks.artifacts import Artifact, Store
from tasks.workspace import Workspace


@dataclass
class PipelineRun:
    config: PipelineConfig
    workspace: Workspace
    force: frozenset[str] = frozenset()
    """Stages to execute although their artifacts are there."""
    flow_run_id: str = ""
    parent_run_id: str = ""
    commit: str = ""
    dataset_md5: str = ""
    states: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, Artifact] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def store(self) -> Store:
        return Store.of(self.workspace)
