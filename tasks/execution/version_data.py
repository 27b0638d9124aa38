"""Versioning the datasets: `data.dvc` follows what is in `data/`, and the configured remote gets it."""

import json
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.serializers import Serializer

from tasks.execution.pipeline import PipelineRun
from tasks.store import dvc as versioning
from tasks.store.artifacts import Artifact
from tasks.store.workspace import Workspace
from tasks.tracking.events import announce


class VersionSerializer(Serializer):
    """Reading the stored version fails once `data.dvc` names another, so that the task then runs again."""

    type: Literal["genai-data-version"] = "genai-data-version"

    def dumps(self, obj: dict[str, Any]) -> bytes:
        return json.dumps(obj).encode()

    def loads(self, blob: bytes) -> dict[str, Any]:
        version = json.loads(blob)
        if versioning.current_md5(Workspace.current()) != version["md5"]:
            raise FileNotFoundError("data.dvc names another version")
        return version


def _cache_key(_: Any, parameters: dict[str, Any]) -> str:
    return "version-data/" + "-".join(artifact.key for artifact in parameters["datasets"])


@task(name="version_data", description="follow the datasets with DVC and push them to the remote",
      cache_policy=CacheKeyFnPolicy(cache_key_fn=_cache_key), result_serializer=VersionSerializer(),
      persist_result=True)
def _version(run: PipelineRun, datasets: list[Artifact]) -> dict[str, Any]:
    return versioning.add_and_push(run.workspace)


def version_data(run: PipelineRun, *datasets: Artifact) -> str:
    """The md5 by which `data.dvc` knows the datasets from now on."""
    announce("started", "version_data")
    state = _version(run, list(datasets), return_state=True)
    if not state.is_completed():
        announce("finished", "version_data", state=state.name)
    version = state.result()
    run.dataset_md5, run.states["version_data"] = version["md5"], state.name or ""
    announce("finished", "version_data", state=state.name)
    return version["md5"]
