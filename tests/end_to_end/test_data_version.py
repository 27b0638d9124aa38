"""The default data is byte for byte what `data.dvc` names, made from nothing but the package registry."""

import pytest

from genai_core.config.pipeline import load_pipeline
from genai_core.context import Context
from tasks.catalog import stages_for
from tasks.pipeline import PipelineRun
from tasks.placement.compute import compute
from tasks.store import dvc, published
from tasks.store.artifacts import Artifact, Store
from tasks.store.workspace import REPOSITORY, Workspace

pytestmark = [pytest.mark.slow, pytest.mark.heavy]


def make_datasets(workspace: Workspace) -> dict[str, Artifact]:
    """Collect, clean and tokenize the default preset without a flow."""
    config = load_pipeline("laptop")
    made: dict[str, Artifact] = {}
    for stage in [stage for stage in stages_for(config) if stage.kind == "dataset"]:
        store = Store.of(workspace)
        request = PipelineRun(config, workspace, artifacts=made).request(stage)
        directory = store.directory(stage.name, stage.kind, request.parts.key)
        with store.new(directory, request.parts) as scratch:
            result = compute(request, scratch, Context(workspace.checkpoints, root=workspace.root))
            made[stage.name] = store.commit(scratch, directory, request.parts, dict(result.metrics))
    return made


def test_the_default_data_is_what_data_dvc_names(tmp_path):
    workspace = Workspace(tmp_path)
    made = make_datasets(workspace)
    assert published.name_datasets(workspace, list(made.values())) == dvc.current_md5(Workspace(REPOSITORY)), \
        "the code or config of a data stage changed: run the preset laptop in a fresh clone and commit its data.dvc"
