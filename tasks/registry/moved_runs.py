"""The MLflow run of an artifact that was made with another MLflow: what a registered version here is a result of."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tasks.store import records
from tasks.store.artifacts import Artifact, read_manifest
from tasks.store.workspace import Workspace
from tasks.tables import flatten
from tasks.tracking import client as tracking

BATCH = 1000
"""As many points as MLflow takes in one call."""


def run_of(workspace: Workspace, artifact: Artifact, parent_run_id: str = "") -> str:
    """The run of this MLflow that made an artifact. Where it is another MLflow's, a copy from the workspace's own
    database, or else a run with what the manifest says, is made and recorded."""
    record = records.read_record(workspace, artifact.stage, artifact.key)
    made_by = record.get("mlflow_run_id", "")
    if made_by and _known(tracking.client(), made_by) is not None:
        return made_by
    run_id = _copy(workspace, artifact, made_by) if made_by else None
    run_id = run_id or _from_manifest(workspace, artifact, record, parent_run_id)
    records.write_record(workspace, artifact, {"mlflow_run_id": run_id})
    return run_id


def _known(client: Any, run_id: str) -> Any:
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, ErrorCode

    try:
        return client.get_run(run_id)
    except MlflowException as error:
        if error.error_code == ErrorCode.Name(RESOURCE_DOES_NOT_EXIST):
            return None
        raise


def _copy(workspace: Workspace, artifact: Artifact, run_id: str) -> str | None:
    """Parameters, curves, tags and the config of a run of the workspace's own database; None where it has no such."""
    import mlflow
    from mlflow.entities import Metric, Param

    database = f"sqlite:///{workspace.root / 'mlflow.db'}"
    if database == workspace.tracking_uri or not (workspace.root / "mlflow.db").is_file():
        return None
    before, client = mlflow.MlflowClient(database, database), tracking.client()
    if (old := _known(before, run_id)) is None:
        return None
    kept = {name: value for name, value in old.data.tags.items() if not name.startswith("mlflow.")}
    new = client.create_run(tracking.experiment_id(), start_time=old.info.start_time, run_name=artifact.stage,
                            tags={**kept, "copied.from": run_id}).info.run_id
    for names in _batches(sorted(old.data.params), 100):
        client.log_batch(new, params=[Param(name, old.data.params[name]) for name in names])
    points = [point for name in old.data.metrics for point in before.get_metric_history(run_id, name)]
    for batch in _batches(points, BATCH):
        client.log_batch(new, metrics=[Metric(point.key, point.value, point.timestamp, point.step) for point in batch])
    _copy_config(before, old.data.tags.get("mlflow.parentRunId", run_id), new)
    client.set_terminated(new, old.info.status, old.info.end_time)
    return str(new)


def _copy_config(before: Any, run_id: str, new: str) -> None:
    """What `genai reproduce` reads: the config of the flow's run, kept with this one, which has no parent here."""
    with tempfile.TemporaryDirectory(prefix="genai-config-") as folder:
        if any(file.path == "config.yaml" for file in before.list_artifacts(run_id)):
            path = before.download_artifacts(run_id, "config.yaml", folder)
            tracking.log_text(new, Path(path).read_text(encoding="utf-8"), "config.yaml")


def _from_manifest(workspace: Workspace, artifact: Artifact, record: dict[str, Any], parent_run_id: str) -> str:
    manifest = read_manifest(artifact.directory(workspace))
    tags = {"stage": artifact.stage, "cache.key": artifact.key, "made": "elsewhere",
            "git.commit": record.get("commit", "")}
    if parent_run_id:
        tags["mlflow.parentRunId"] = parent_run_id
    client = tracking.client()
    run_id = client.create_run(tracking.experiment_id(), run_name=artifact.stage, tags=tags).info.run_id
    tracking.log_parameters(run_id, flatten(manifest["config"]))
    for name, value in manifest["metrics"].items():
        client.log_metric(run_id, tracking.allowed_name(f"result/{name}"), float(value))
    client.set_terminated(run_id, "FINISHED")
    return str(run_id)


def _batches(items: list[Any], size: int) -> Iterator[list[Any]]:
    for first in range(0, len(items), size):
        yield items[first:first + size]
