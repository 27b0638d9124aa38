"""The release that a run is held against, and its models on this machine."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from genai_core.errors import InputError
from tasks.catalog import find_stage
from tasks.pipeline import PipelineRun
from tasks.registry.contents import lost_file
from tasks.registry.files import fetch_model
from tasks.registry.releases import Release, in_service, model_stages_of, releases
from tasks.registry.versions import model_name
from tasks.stage import Stage, named
from tasks.store.artifacts import Artifact, Store
from tasks.store.workspace import Workspace


def opponent(family: str, made: Mapping[str, Artifact]) -> Release | None:
    """The release in service; None before the first one.

    Where it holds just what the run has made, the run is held against what that release was held against, so that the
    same command comes to the same verdict from the cache; against nothing where that is gone, since nothing will move.
    """
    release = in_service(family)
    models = {stage: made[stage].digest for stage in model_stages_of(family) if stage in made}
    if release and models == release.digests:
        return next((earlier for earlier in releases(family) if earlier.name == release.compared_with), None)
    return release


def opposing_models(release: Release, stage: Stage, workspace: Workspace) -> dict[str, Artifact]:
    """The models of a release that a stage is held against, fetched from the registry where they are not here.

    Raises InputError when one is nowhere.
    """
    return {name: _found(release, name, workspace) for name in _wanted(release, stage)}


def all_here(release: Release, stage: Stage, workspace: Workspace) -> bool:
    """Whether none of these models has to be fetched first."""
    return all(_directory(release, name, workspace).is_dir() for name in _wanted(release, stage))


def require_opponent(family: str, stages: Sequence[Stage], workspace: Workspace) -> None:
    """Raises InputError, before anything is made, when a model that the run will be held against is nowhere."""
    release = in_service(family)
    if release is None:
        return
    for name in (name for stage in stages for name in _wanted(release, stage)):
        here = _directory(release, name, workspace).is_dir()
        if not here and (reason := lost_file(f"models:/{model_name(name)}/{release.versions[name]}")):
            raise _nowhere(release, name, reason)


def models_in_service(run: PipelineRun, stage: Stage) -> dict[str, Artifact]:
    """What a stage of a run is held against, which the run notes; nothing before the first release."""
    if not stage.in_service:
        return {}
    release = opponent(run.family, run.artifacts)
    run.held_against = release.name if release else ""
    return opposing_models(release, stage, run.workspace) if release else {}


def _wanted(release: Release, stage: Stage) -> list[str]:
    """The stages of a release whose models a stage is given."""
    return [next((name for name in named(given) if name in release.keys), named(given)[0])
            for given in stage.in_service.values()]


def _found(release: Release, name: str, workspace: Workspace) -> Artifact:
    directory = _directory(release, name, workspace)
    store, key = Store.of(workspace), release.keys[name]
    with store.lock(name, key):
        found = store.find(directory) or fetch_model(workspace, name, key)
    if found is None:
        raise _nowhere(release, name, "neither here nor in the registry")
    if found.digest != release.digests[name]:
        raise _nowhere(release, name, "what is here under its key has other bytes")
    return found


def _nowhere(release: Release, name: str, reason: str) -> InputError:
    return InputError(f"release {release.name}, which this run is to be held against, has lost its {name} model "
                      f"{release.keys.get(name, '')} ({reason}); `genai rollback NAME` puts another release in "
                      "service, `genai promote MODEL --override REASON` the models of a run --until evaluate")


def _directory(release: Release, name: str, workspace: Workspace) -> Path:
    if name not in release.keys:
        raise _nowhere(release, name, "it names none")
    return Store.of(workspace).directory(name, find_stage(release.family, name).kind, release.keys[name])
