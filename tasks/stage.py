"""What a stage is, and how it becomes a cached Prefect task."""

import logging
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import task
from prefect.cache_policies import CacheKeyFnPolicy
from prefect.serializers import Serializer
from prefect.states import Completed

from genai_core.config.pipeline import PipelineConfig
from genai_core.families.config import FamilyConfig
from genai_core.reporter import Reporter
from genai_core.result import Result
from tasks.execution.cost import measured_cost
from tasks.execution.pipeline import PipelineRun
from tasks.registry import versions as registry
from tasks.registry.model_card import write_model_card
from tasks.store import dvc as versioning
from tasks.store import records
from tasks.store.artifacts import Artifact, KeyParts, Store
from tasks.store.disk import clear_error_when_full, require_space
from tasks.store.fingerprint import code_fingerprint
from tasks.store.workspace import Workspace
from tasks.tracking.events import announce
from tasks.tracking.stage_run import stage_run
from tasks.views import prefect_artifacts

logger = logging.getLogger("tasks")


@dataclass(frozen=True)
class Context:
    """What a stage's computation may use beside its config and inputs; none of it is part of a key."""

    workspace: Workspace
    config: PipelineConfig | FamilyConfig
    reporter: Reporter
    checkpoint_dir: Path

    def training(self) -> Any:
        """How the training loop is to run here."""
        from genai_core.training.loop import Run

        runtime = self.config.runtime
        return Run(self.checkpoint_dir, self.reporter, runtime.device, runtime.compile, runtime.checkpoint_seconds)


@dataclass(frozen=True)
class Stage:
    """One stage: its name, what it depends on, and the function of the core that computes it."""

    name: str
    core: str
    """Module of the core; what it reaches by imports is the stage's code."""
    settings: tuple[str, ...]
    """Parts of the config that the stage reads, as `section` or `section.field`: no more and no less than its key."""
    inputs: tuple[str, ...]
    """Stages whose artifacts it takes, in the order in which the flow hands them over."""
    kind: Literal["dataset", "model", "report"]
    compute: Callable[[Any, dict[str, Path], Path, Context], Result]
    describe: str
    """What it does, in the words of the stage list."""
    extra_inputs: Callable[[Any, Workspace], dict[str, str]] = field(default=lambda config, workspace: {})
    """Digests of inputs from outside, for example of the user's own files."""

    def key_parts(self, config: PipelineConfig | FamilyConfig, inputs: dict[str, str], workspace: Workspace
                  ) -> KeyParts:
        """Everything that the artifact depends on; `inputs` are digests by stage name."""
        chosen = {name: _setting(config, name) for name in self.settings}
        return KeyParts(self.name, chosen, inputs | self.extra_inputs(config, workspace), code_fingerprint(self.core))


class ArtifactSerializer(Serializer):
    """Stores the small reference. Reading it back looks at the artifact's bytes: a damaged or missing artifact reads as
    an error, which Prefect takes for a miss, so that the task runs again and fetches or makes just that artifact."""

    type: Literal["genai-artifact"] = "genai-artifact"

    def dumps(self, obj: Artifact) -> bytes:
        return obj.model_dump_json().encode()

    def loads(self, blob: bytes) -> Artifact:
        artifact = Artifact.model_validate_json(blob)
        workspace = Workspace.current()
        found = Store.of(workspace).find(artifact.directory(workspace))
        if found != artifact:
            raise FileNotFoundError(f"{artifact.path} is not there as it was")
        return artifact


class LastStageDone(Exception):
    """The stage that `until` names is finished: nothing after it is to run."""


def _cache_key(_: Any, parameters: dict[str, Any]) -> str:
    parts: KeyParts = parameters["parts"]
    return f"{parts.stage}/{parts.key}"


def stage_task(stage: Stage) -> Callable[..., Artifact]:
    """The cached task of a stage: call it with the run and the artifacts of its input stages."""

    @task(name=stage.name, description=stage.describe, cache_policy=CacheKeyFnPolicy(cache_key_fn=_cache_key),
          result_serializer=ArtifactSerializer(), persist_result=True)
    def execute(run: PipelineRun, parts: KeyParts, inputs: dict[str, Artifact]) -> Any:
        artifact, state = _execute(stage, run, parts, inputs)
        # a named state, so that what was found or fetched does not look like what was computed
        return artifact if state == "Completed" else Completed(name=state, data=artifact)

    def call(run: PipelineRun, *given: Artifact) -> Artifact:
        inputs = dict(zip(stage.inputs, given, strict=True))
        parts = stage.key_parts(run.config, {name: artifact.digest for name, artifact in inputs.items()}, run.workspace)
        announce("started", stage.name)
        state = execute.with_options(refresh_cache=stage.name in run.force)(run, parts, inputs, return_state=True)
        if not state.is_completed():
            announce("finished", stage.name, state=state.name)
        artifact: Artifact = state.result()
        run.states[stage.name], run.artifacts[stage.name] = state.name or "", artifact
        records.mark_used(run.workspace, artifact)
        if stage.kind == "model":
            run.versions[stage.name] = registry.ensure_registered(run, stage.name, artifact)
        announce("finished", stage.name, state=state.name)
        if stage.name == run.until:
            raise LastStageDone(stage.name)
        return artifact

    call.__name__ = stage.name
    call.__doc__ = stage.describe
    return call


def _execute(stage: Stage, run: PipelineRun, parts: KeyParts, inputs: dict[str, Artifact]) -> tuple[Artifact, str]:
    """Find, fetch or make the artifact, under the lock of its key."""
    store = run.store
    directory = store.directory(stage.name, stage.kind, parts.key)
    with store.lock(stage.name, parts.key):
        if stage.name not in run.force:
            if found := store.find(directory):
                return found, "Cached"
            if fetched := _fetch(stage, run, store, directory):
                logger.info("%s %s fetched, not made", stage.name, parts.key)
                return fetched, "Fetched"
        return _make(stage, run, store, directory, parts, inputs), "Completed"


def _fetch(stage: Stage, run: PipelineRun, store: Store, directory: Path) -> Artifact | None:
    if stage.kind == "dataset" and versioning.pull(run.workspace, directory):
        return store.find(directory)
    if stage.kind == "model":
        with registry.downloaded(run.workspace, stage.name, directory.name) as copy:
            return store.adopt(copy, directory) if copy else None
    return None


def _make(stage: Stage, run: PipelineRun, store: Store, directory: Path, parts: KeyParts,
          inputs: dict[str, Artifact]) -> Artifact:
    started, clock, cpu_clock = datetime.now(UTC), time.monotonic(), _cpu_seconds()
    paths = {name: artifact.directory(run.workspace) for name, artifact in inputs.items()}
    require_space(run.workspace, stage.name)
    with (stage_run(run, stage.name, parts) as tracked, clear_error_when_full(run.workspace, stage.name),
          store.new(directory, parts) as scratch):
        checkpoint_dir = run.workspace.checkpoints / stage.name / parts.key
        context = Context(run.workspace, run.config, tracked.reporter, checkpoint_dir)
        result = stage.compute(run.config, paths, scratch, context)
        if stage.kind == "model":
            prefect_artifacts.show_model_card(write_model_card(scratch, stage.name, parts, inputs,
                                                               dict(result.metrics)), stage.name)
        artifact = store.commit(scratch, directory, parts, dict(result.metrics))
        seconds = time.monotonic() - clock
        cost = measured_cost(run.config.runtime, seconds, _cpu_seconds() - cpu_clock, result.metrics.get("flops", 0.0))
        records.write_record(run.workspace, artifact, {
            "digest": artifact.digest, "started": started.isoformat(timespec="seconds"), "seconds": seconds,
            "cost": asdict(cost), "commit": run.commit, "command": run.command, "flow_run_id": run.flow_run_id,
            "mlflow_run_id": tracked.run_id, "dvc_md5": run.dataset_md5, "flops": result.metrics.get("flops"),
            "measurements": dict(result.measurements), **records.host()})
        tracked.finish(result, seconds=seconds, energy_watt_hours=cost.energy_watt_hours, money=cost.money)
    _remove_checkpoints(checkpoint_dir)
    return artifact


def _cpu_seconds() -> float:
    """Of this process and of the children that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _remove_checkpoints(directory: Path) -> None:
    shutil.rmtree(directory, ignore_errors=True)      # the artifact is there: nothing will continue from them


def _setting(config: PipelineConfig | FamilyConfig, name: str) -> Any:
    value: Any = config
    for part in name.split("."):
        value = getattr(value, part)
    return value.model_dump(mode="json") if hasattr(value, "model_dump") else value
