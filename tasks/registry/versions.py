"""The MLflow model registry: one registered model per stage, aliases instead of stages, no version twice."""

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import packages_distributions
from importlib.metadata import version as distribution_version
from pathlib import Path
from threading import Lock
from typing import Any

from genai_core.errors import InputError
from genai_core.models.opened import kind_of, read_json, served
from tasks.catalog import lasting_stages, model_stages
from tasks.pipeline import PipelineRun
from tasks.registry.moved_runs import run_of
from tasks.stage import Stage
from tasks.store import records
from tasks.store.artifacts import KEY, MANIFEST, Artifact, Store, read_manifest
from tasks.store.cost import recorded_cost
from tasks.store.key import kinds_in
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")

SERVED = ("torch", "safetensors", "tokenizers", "numpy", "pydantic", "pyyaml", "pyarrow", "matplotlib", "ftfy",
          "beautifulsoup4", "gguf")
"""What a served model of any family imports."""
ALIASES = ("champion", "candidate", "previous")


def model_name(stage: str) -> str:
    return f"genai-{stage.replace('_', '-')}"


def ensure_registered(run: PipelineRun, stage: Stage, artifact: Artifact) -> str:
    """The version that holds an artifact, registered now if it is not yet; so a cache hit never makes a new one."""
    return register(run.workspace, stage, artifact, run.parent_run_id, run.dataset_md5)


def register(workspace: Workspace, stage: Stage, artifact: Artifact, parent_run_id: str = "", dataset_md5: str = ""
             ) -> str:
    """The version that holds an artifact of this workspace, registered now if it is not yet, and now the candidate."""
    with Store.of(workspace).lock("registry", stage.name):
        found = find_version(stage.name, artifact.key, artifact.digest)
        version = str(found.version) if found else _register(workspace, stage, artifact, parent_run_id, dataset_md5)
        set_alias(stage.name, "candidate", version)
        return version


def key_figures(stage: str, metrics: dict[str, float]) -> dict[str, float]:
    """The metrics of a stage that lists show."""
    declared = lasting_stages().get(stage)
    return {name: metrics[name] for name in declared.figures if name in metrics} if declared else {}


def figures_of(run: PipelineRun) -> dict[str, float]:
    """The figures worth comparing of every stage of a run, as `stage/figure`."""
    figures: dict[str, float] = {}
    for stage, artifact in run.artifacts.items():
        metrics = read_manifest(artifact.directory(run.workspace))["metrics"]
        figures |= {f"{stage}/{name}": value for name, value in key_figures(stage, metrics).items()}
    return figures


def find_version(stage: str, key: str, digest: str | None = None) -> Any:
    """The first version with this key, and with these bytes where they are given, since the first stays when two hosts
    register in the same moment (`_only_one`); None if there is none."""
    return min(_versions(stage, key, digest), key=lambda version: int(version.version), default=None)


def _versions(stage: str, key: str, digest: str | None) -> list[Any]:
    query = f"name='{model_name(stage)}' and tags.`cache.key`='{key}'"
    if digest:
        query += f" and tags.`artifact.digest`='{digest}'"
    return list(tracking.client().search_model_versions(query))


def _register(workspace: Workspace, declared: Stage, artifact: Artifact, parent_run_id: str, dataset_md5: str) -> str:
    """Log the model and create its version, which has its tags from the first moment: it is whole or not there."""
    import mlflow

    stage = declared.name
    directory = artifact.directory(workspace)
    metrics = read_manifest(directory)["metrics"]
    run_id = run_of(workspace, artifact, parent_run_id)
    record = records.read_record(workspace, stage, artifact.key)
    tags = _tags(workspace, artifact, record, dataset_md5)
    with _quiet(), mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name=stage, python_model=str(Path(__file__).with_name("pyfunc_model.py")),
            artifacts={"model": str(directory)}, code_paths=[str(Path(__file__).parents[2] / "genai_core")],
            pip_requirements=_requirements(declared, record),
            input_example=None, signature=_signature(directory), tags=tags)
        created = mlflow.register_model(f"models:/{info.model_id}", model_name(stage), tags=tags)
    client = tracking.client()
    version = _only_one(stage, artifact, str(created.version))
    figures = ", ".join(f"{name} {value:.4g}" for name, value in key_figures(stage, metrics).items())
    client.update_model_version(model_name(stage), version, f"{stage} {artifact.key}: {figures}")
    client.update_registered_model(model_name(stage), declared.use)
    return version


def _tags(workspace: Workspace, artifact: Artifact, record: dict[str, Any], dataset_md5: str) -> dict[str, str]:
    """Where the model comes from, by its record alone: a model without one was made by nobody knows which commit."""
    directory = artifact.directory(workspace)
    inputs: dict[str, str] = read_manifest(directory)["inputs"]
    parent = next((name for name in inputs if name in model_stages()), None)      # the first: a judge comes after it
    made_from = version_of_digest(parent, inputs[parent]) if parent else None
    cost = recorded_cost(record)
    return {"stage": artifact.stage, "cache.key": artifact.key, "artifact.digest": artifact.digest,
            "path": artifact.path, "kinds": json.dumps(sorted(kinds_in(directory))),
            "dvc.md5": record.get("dvc_md5") or dataset_md5,
            "prefect.flow_run_id": record.get("flow_run_id", ""),
            "git.commit": record.get("commit", ""), "command": record.get("command", ""),
            **_runtime(directory),
            "parent": f"models:/{made_from.name}/{made_from.version}" if made_from else "",
            "environment": json.dumps(record.get("environment", {})), "record": json.dumps(record),
            "cost.seconds": f"{cost.seconds:.1f}", "cost.flops": f"{cost.flops:.4g}",
            "cost.energy_watt_hours": f"{cost.energy_watt_hours:.3f}",
            "cost.money": f"{cost.money:.4f} {cost.currency}".strip()}


def _runtime(directory: Path) -> dict[str, str]:
    """What a quantized model is served in and by: the weights of one of its formats, and llama.cpp."""
    description = served(directory) / "quantization.json"
    if not description.is_file():
        return {}
    return {"served.format": read_json(description).get("format", ""), "served.runtime": "llama.cpp"}


def _only_one(stage: str, artifact: Artifact, created: str) -> str:
    """A request whose answer was lost is sent again, and the server may have carried out both: keep the first.

    So does every host that registers in this moment, so what is deleted may be gone already.
    """
    from mlflow.exceptions import MlflowException

    versions = sorted(_versions(stage, artifact.key, artifact.digest), key=lambda version: int(version.version))
    for doubled in versions[1:]:
        try:
            tracking.client().delete_model_version(model_name(stage), doubled.version)
        except MlflowException:
            if doubled.version in [left.version for left in _versions(stage, artifact.key, artifact.digest)]:
                raise
    return str(versions[0].version) if versions else created


_silence = Lock()


@contextmanager
def _quiet() -> Iterator[None]:
    """MLflow tells the terminal of each version it creates; the stage list says it already. One thread at a time: there
    is one standard error."""
    with _silence, warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _signature(directory: Path) -> Any:
    from mlflow.models import infer_signature

    scores = kind_of(served(directory)) == "reward_model"
    return infer_signature(["How are you?"], [0.5] if scores else ["I am well."],
                           params={"max_new_tokens": 64, "temperature": 0.0})


def _requirements(stage: Stage, record: dict[str, Any]) -> list[str]:
    """What the served model imports, in the versions that made it, and the package that brought its stage."""
    made_with: dict[str, str] = record.get("environment", {})
    pinned = [f"{name}=={made_with[name]}" if name in made_with else name for name in SERVED]
    package = stage.core.split(".")[0]
    if package == "genai_core":
        return pinned
    return pinned + [f"{name}=={distribution_version(name)}" for name in packages_distributions().get(package, ())]


def tag(stage: str, version: str, tags: dict[str, str]) -> None:
    for name, value in tags.items():
        _set(tracking.client().set_model_version_tag, model_name(stage), version, name, value)


def note_report(workspace: Workspace, artifact: Artifact) -> None:
    """Tell the versions that a report judged where it is: under its key, on every host."""
    for stage, digest in read_manifest(artifact.directory(workspace))["inputs"].items():
        version, name = version_of_digest(stage, digest), f"report.{artifact.stage}"
        if version is not None and version.tags.get(name) != artifact.key:
            tag(stage, str(version.version), {name: artifact.key})


def set_alias(stage: str, alias: str, version: str) -> None:
    _set(tracking.client().set_registered_model_alias, model_name(stage), alias, version)


def _set(setter: Callable[..., None], *arguments: str) -> None:
    """MLflow looks whether an entry is there and then adds or changes it: of two writers of a new one that meet, the
    later is refused, and finds it there when it comes again."""
    from mlflow.exceptions import MlflowException

    try:
        setter(*arguments)
    except MlflowException:
        setter(*arguments)


def list_versions() -> list[dict[str, Any]]:
    """Every registered version of this project, newest last: what `genai models` prints."""
    client, workspace = tracking.client(), Workspace.current()
    rows = []
    for stage in model_stages():
        model = registered_model(stage)
        if model is None:
            continue
        aliases: dict[str, list[str]] = {}
        for alias, version in model.aliases.items():
            aliases.setdefault(str(version), []).append(alias)
        for version in sorted(client.search_model_versions(f"name='{model_name(stage)}'"),
                              key=lambda version: int(version.version)):
            path = directory_of(workspace, version)
            figures = key_figures(stage, read_manifest(path)["metrics"]) if path else {}
            rows.append({"stage": stage, "name": model_name(stage), "version": int(version.version),
                         "aliases": sorted(aliases.get(str(version.version), []), key=ALIASES.index),
                         "parent": version.tags.get("parent", ""), "dvc_md5": version.tags.get("dvc.md5", ""),
                         "gates": version.tags.get("gates", ""), "commit": version.tags.get("git.commit", ""),
                         "figures": figures, "path": str(path) if path else ""})
    return rows


def directory_of(workspace: Workspace, version: Any) -> Path | None:
    """Where the artifact of a version lies in a workspace; None where it does not.

    Stage and key say where: a path that somebody wrote into a registry could lead anywhere.
    """
    stage, key = version.tags.get("stage", ""), version.tags.get("cache.key", "")
    if stage not in model_stages() or not KEY.fullmatch(key):
        return None
    directory = Store.of(workspace).directory(stage, "model", key)
    return directory if (directory / MANIFEST).is_file() else None


def registered_model(stage: str) -> Any:
    """MLflow's entry of the registered model of a stage, with its aliases and tags; None before its first version."""
    return next(iter(tracking.client().search_registered_models(f"name='{model_name(stage)}'")), None)


def read_version(uri: str) -> Any:
    """MLflow's entry of `models:/NAME/VERSION` or `models:/NAME@ALIAS`; `models:/` may be left out.

    Raises InputError when the registry does not have it.
    """
    from mlflow.exceptions import MlflowException

    name, at, alias = uri.removeprefix("models:/").partition("@")
    try:
        if at:
            return tracking.client().get_model_version_by_alias(name, alias)
        name, _, number = name.partition("/")
        return tracking.client().get_model_version(name, number)
    except MlflowException:
        raise InputError(f"{uri}: the registry has no such model; `genai models` lists what there is") from None


def version_of_digest(stage: str, digest: str) -> Any:
    """The newest version that holds an artifact with these bytes; None if none does, or the stage makes no models."""
    if stage not in model_stages():
        return None
    found = tracking.client().search_model_versions(f"name='{model_name(stage)}' and tags.`artifact.digest`='{digest}'")
    return max(found, key=lambda version: int(version.version), default=None)


def aliases_of(version: Any) -> list[str]:
    aliases = tracking.client().get_registered_model(version.name).aliases
    return sorted((alias for alias, number in aliases.items() if str(number) == str(version.version)),
                  key=lambda alias: ALIASES.index(alias) if alias in ALIASES else len(ALIASES))


def champion(stage: str) -> Any:
    """MLflow's entry of the version in service; None when there is none."""
    model = registered_model(stage)
    version = model.aliases.get("champion") if model else None
    return tracking.client().get_model_version(model_name(stage), str(version)) if version else None
