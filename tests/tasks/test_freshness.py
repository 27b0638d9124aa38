"""The look that a schedule takes first, and the run after it, read the data once."""

from collections import Counter

from genai_core.config.pipeline import load_pipeline
from tasks.catalog import stages_for
from tasks.execution.plan import plan
from tasks.store import artifacts
from tasks.store.artifacts import Store
from tasks.store.workspace import Workspace
from tests.tasks.test_plan import pretend


def test_plan_and_run_read_each_file_once(tmp_path, monkeypatch):
    workspace, config = Workspace(tmp_path), load_pipeline("smoke")
    collected = pretend(workspace, config, "collect", {})
    pretend(workspace, config, "clean", {"collect": collected})
    read: Counter[str] = Counter()
    real = artifacts.file_digest
    monkeypatch.setattr(artifacts, "file_digest", lambda path: read.update([str(path)]) or real(path))
    datasets = [stage for stage in stages_for(config) if stage.kind == "dataset"]
    assert [line.state for line in plan(config, workspace, stages=datasets)] == ["hit", "hit", "miss"]
    for path in workspace.data.glob("*/*"):
        assert Store.of(workspace).find(path)      # what executing a stage does first
    assert read and set(read.values()) == {1}
