"""A workspace that was alone joins a team: all that it has goes to the configured servers and remote."""

import socket
from collections.abc import Callable

from genai_core.errors import InputError
from tasks.catalog import FAMILIES, stages_of
from tasks.registry import promotion, versions
from tasks.registry.releases import Release, in_service_at
from tasks.stage import Stage
from tasks.store import dvc, published
from tasks.store.artifacts import Artifact, Store
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking


def publish_workspace(workspace: Workspace, tell: Callable[[str], None]) -> int:
    """Publish every whole artifact here, and register every model; the number of artifacts. Where the registry has no
    release in service, the one that is in service here comes into service there too.

    What is there already is left alone, so that a repeated call goes on where one was cut short. Raises InputError when
    a server or the remote refuses.
    """
    done = 0
    for stage in _stages():
        for artifact in _artifacts(workspace, stage):
            if stage.kind == "model":
                version = versions.register(workspace, stage, artifact)
                tell(f"{stage.name} {artifact.key}: {versions.model_name(stage.name)} version {version}")
            else:
                published.publish(workspace, [artifact], ask=True)
                if stage.kind == "report":
                    versions.note_report(workspace, artifact)
                tell(f"{stage.name} {artifact.key}: on the remote")
            done += 1
    if md5 := dvc.current_md5(workspace):
        published.publish_list(workspace, md5)
    for release in _own_releases(workspace):
        there = None
        with tracking.told(f"release {release.name} does not come into service there"):
            there = promotion.adopt(release, f"published as release {release.name} of {socket.gethostname()}")
        if there:
            tell(f"release {release.name}: in service as {there.name}, which the next run is held against")
    return done


def _own_releases(workspace: Workspace) -> list[Release]:
    """What is in service by the workspace's own database, where the registry is another one now."""
    import mlflow

    database = f"sqlite:///{workspace.root / 'mlflow.db'}"
    if database == workspace.tracking_uri or not (workspace.root / "mlflow.db").is_file():
        return []
    client = mlflow.MlflowClient(database, database)
    return [release for family in ("", *FAMILIES) if (release := in_service_at(client, family))]


def _stages() -> list[Stage]:
    """Every stage once, inputs before what is made from them: a version names its parent's."""
    every = [stage for family in ("", *FAMILIES) for stage in stages_of(family)]
    unique = list({(stage.kind, stage.name): stage for stage in every}.values())
    return [stage for kind in ("dataset", "model", "report") for stage in unique if stage.kind == kind]


def _artifacts(workspace: Workspace, stage: Stage) -> list[Artifact]:
    store = Store.of(workspace)
    folders = sorted((workspace.root / stage.folder / stage.name).glob("*"), key=lambda path: path.stat().st_mtime)
    return [artifact for folder in folders if (artifact := store.find(folder))]


def require_servers(environment: dict[str, str]) -> None:
    """Raises InputError unless something says where to publish."""
    if not (environment.get("MLFLOW_TRACKING_URI") or environment.get("GENAI_DVC_REMOTE")):
        raise InputError("publish: set MLFLOW_TRACKING_URI or GENAI_DVC_REMOTE, or both: they say where to")
