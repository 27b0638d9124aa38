"""Whether the model in service was made from the data that there is now: what a schedule asks first."""

from genai_core.config.pipeline import PipelineConfig
from tasks.execution.plan import plan
from tasks.language_model import STAGES
from tasks.registry import versions
from tasks.store.artifacts import MANIFEST, read_manifest
from tasks.store.workspace import Workspace

LAST_MODEL = "quantize"


def champion_of_the_same_data(config: PipelineConfig) -> str:
    """The champion's name and version if its data is what the sources and the data stages give now; else empty."""
    workspace = Workspace.current()
    datasets = [line for line, stage in zip(plan(config, workspace), STAGES, strict=True) if stage.kind == "dataset"]
    champion = versions.champion(LAST_MODEL)
    if champion is None or any(line.state != "hit" for line in datasets):
        return ""
    directory = workspace.root / champion.tags.get("path", "")
    tokens = workspace.data / "tokenize" / datasets[-1].key
    if not (directory / MANIFEST).is_file():
        return ""
    same = read_manifest(directory)["inputs"]["tokenize"] == read_manifest(tokens)["digest"]
    return f"{champion.name} version {champion.version}" if same else ""
