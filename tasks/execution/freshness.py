"""Whether the model in service was made from the data that there is now: what a schedule asks first."""

from genai_core.config.pipeline import PipelineConfig
from genai_core.families.config import FamilyConfig
from tasks.catalog import stages_for
from tasks.execution.plan import plan
from tasks.registry import versions
from tasks.registry.files import manifest_of
from tasks.store.workspace import Workspace

LAST_MODEL = "quantize"


def champion_of_the_same_data(config: PipelineConfig | FamilyConfig) -> str:
    """The champion's name and version if its data is what the sources and the data stages give now; else empty."""
    workspace, champion = Workspace.current(), versions.champion(LAST_MODEL)
    if champion is None:
        return ""
    datasets = plan(config, workspace, stages=[stage for stage in stages_for(config) if stage.kind == "dataset"])
    manifest = manifest_of(workspace, champion) if all(line.digest for line in datasets) else None
    same = manifest is not None and manifest["inputs"].get("tokenize") == datasets[-1].digest
    return f"{champion.name} version {champion.version}" if same else ""
