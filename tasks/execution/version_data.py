"""Versioning the datasets: the remote gets those of a run, and `data.dvc` names them."""

from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.states import Completed

from tasks.pipeline import PipelineRun
from tasks.store import dvc, published, records
from tasks.store.artifacts import Artifact
from tasks.store.disk import clear_error_when_full
from tasks.store.workspace import Workspace
from tasks.tracking.events import announce


@task(name="version_data", description="publish the datasets on the remote and name them in data.dvc",
      cache_policy=NO_CACHE, persist_result=False)
def _version(workspace: Workspace, datasets: list[Artifact]) -> Any:
    """The md5 of the datasets; nothing is done when `data.dvc` names just these and the remote has them."""
    record = workspace.hidden / "records" / "version_data" / f"{'-'.join(artifact.key for artifact in datasets)}.json"
    known = records.read_json(record).get("md5")
    if known and known == dvc.current_md5(workspace) and published.all_known(workspace, datasets):
        return Completed(name="Cached", data=known)
    with clear_error_when_full(workspace, "version_data"):
        md5 = published.name_datasets(workspace, datasets)
        records.write_json(record, {"md5": md5})
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
