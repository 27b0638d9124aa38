"""A registry on a real MLflow with runs whose models are a few bytes."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from genai_core.config.pipeline import PipelineConfig
from genai_core.families.config import FamilyConfig
from tasks.catalog import family_named
from tasks.pipeline import PipelineRun
from tasks.registry import releases, versions
from tasks.store.artifacts import KeyParts
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

FAMILY = "music"
"""It has two models: the fewest of which a part can be moved."""
STAGES = releases.model_stages_of(FAMILY)


@dataclass
class Registry:
    """A workspace with an MLflow of its own, and runs whose models are a few bytes."""

    workspace: Workspace
    passed: bool = True

    def run(self, content: str, config: PipelineConfig | FamilyConfig | None = None) -> PipelineRun:
        """A run that made models of this content, registered and judged but not acted on; of a family where no config
        says otherwise."""
        run = PipelineRun(config or family_named(FAMILY).load("smoke"), self.workspace, command="genai run",
                          commit="c0ffee")
        run.parent_run_id = tracking.start_parent_run(content, {}, {})
        for declared in run.stages:
            if declared.kind == "dataset":
                continue
            stage, report = declared.name, declared.kind == "report"
            parts = KeyParts(stage, {"content": content}, {}, {})
            directory = run.store.directory(stage, declared.kind, parts.key)
            if not directory.exists():
                with run.store.new(directory, parts) as scratch:
                    (scratch / "weights").write_text(content)
                    if stage == "promote":
                        verdict = {"gate": "size", "figure": "int8/size", "value": 1.0, "comparison": "<=",
                                   "bound": 0.5, "passed": self.passed, "interval": [0.9, 1.1]}
                        (scratch / "gates.json").write_text(json.dumps([verdict]))
                    run.store.commit(scratch, directory, parts, {})
            artifact = run.artifacts[stage] = run.store.find(directory)
            if not report:
                run.versions[stage] = self._version(stage, artifact, run)
        return run

    def _version(self, stage, artifact, run) -> str:
        client, name = tracking.client(), versions.model_name(stage)
        if found := versions.find_version(stage, artifact.key):
            return str(found.version)
        if versions.registered_model(stage) is None:
            client.create_registered_model(name)
        folder = self.workspace.root / "mlartifacts" / stage / artifact.key
        target = folder / "artifacts" / artifact.key
        target.mkdir(parents=True)
        for file in artifact.directory(self.workspace).iterdir():
            (target / file.name).write_bytes(file.read_bytes())
        tags = {"stage": stage, "cache.key": artifact.key, "artifact.digest": artifact.digest, "path": artifact.path}
        return str(client.create_model_version(name, folder.as_uri(), run.parent_run_id, tags=tags).version)

    def aliases(self, alias: str = "champion", stages: tuple[str, ...] = STAGES) -> dict[str, str]:
        return {stage: str(versions.registered_model(stage).aliases.get(alias, "")) for stage in stages}


def _home(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Make `root` the workspace; the client of another one leaves its addresses in the environment."""
    patch.setenv("GENAI_HOME", str(root))
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI"):
        patch.delenv(name, raising=False)
    _forget_the_client()


def _forget_the_client() -> None:
    for cached in (tracking.client, tracking.experiment_id, releases._warn_once):
        cached.cache_clear()


@pytest.fixture(scope="module")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database with nothing in it: making one takes seconds."""
    home = tmp_path_factory.mktemp("empty")
    with pytest.MonkeyPatch.context() as patch:
        _home(home, patch)
        tracking.experiment_id()
    return home / "mlflow.db"


@pytest.fixture
def registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Iterator[Registry]:
    shutil.copy(empty_database, tmp_path)
    _home(tmp_path, monkeypatch)
    yield Registry(Workspace(tmp_path))
    _forget_the_client()
