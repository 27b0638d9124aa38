"""Versioning the datasets: the remote gets those of a run, and `data.dvc` names them."""

import json
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from tasks.pipeline import PipelineRun
from tasks.store import dvc, published
from tasks.store.artifacts import Artifact
from tasks.store.disk import clear_error_when_full
from tasks.store.workspace import Workspace
from tasks.tracking.events import announce


@task(name="version_data", description="publish the datasets on the remote and name them in data.dvc",
      cache_policy=NO_CACHE, persist_result=False)
def _version(workspace: Workspace, datasets: list[Artifact]) -> Any:
    """The md5 of the datasets; nothing is done when `data.dvc` names just these and the remote has them."""
    record = workspace.hidden / "records" / "version_data" / f"{'-'.join(artifact.key for artifact in datasets)}.json"
    known = json.loads(record.read_text(encoding="utf-8"))["md5"] if record.is_file() else None
    if known and known == dvc.current_md5(workspace) and published.all_known(workspace, datasets):
        return Completed(name="Cached", data=known)
    with clear_error_when_full(workspace, "version_data"):
        md5 = published.name_datasets(workspace, datasets)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"md5": md5}) + "\n", encoding="utf-8")
    return md5


def version_data(run: PipelineRun) -> str:
    """The md5 by which `data.dvc` knows the datasets of the run from now on."""
    announce("started", "version_data")
    datasets = [artifact for artifact in run.artifacts.values() if artifact.path.startswith("data/")]
    state = _version(run.workspace, datasets, return_state=True)
    if not state.is_completed():
        announce("finished", "version_data", state=state.name)
    run.dataset_md5, run.states["version_data"] = state.result(), state.name or ""
    announce("finished", "version_data", state=state.name)
    return run.dataset_md5
