"""Calling the core: what every process does that computes a stage, wherever it runs."""

import os
from pathlib import Path
from typing import Any

from genai_core.context import Context, Reporter, Result
from tasks.pipeline import StageRequest
from tasks.stage import named
from tasks.store.key import resolve
from tasks.store.workspace import Workspace


def context_of(request: StageRequest, checkpoint_dir: Path, reporter: Reporter) -> Context:
    """How the core is to compute a request, as its runtime says."""
    runtime = request.runtime
    return Context(checkpoint_dir, reporter, request.workspace,
                   device=runtime.device if request.stage.resources.devices else "cpu", compile=runtime.compile,
                   deterministic=runtime.deterministic, recompute_activations=runtime.recompute_activations,
                   shard_above=runtime.shard_above, checkpoint_seconds=runtime.checkpoint_seconds,
                   stop_at=request.stop_at)


def compute(request: StageRequest, out_dir: Path, context: Context) -> Result:
    """Call the core's `run` with what the stage declares."""
    paths = {name: artifact.directory(Workspace(request.workspace)) for name, artifact in request.inputs.items()}
    inputs: dict[str, Any] = {
        argument: {name: paths[name] for name in given} if isinstance(given, tuple) else paths[str(given)]
        for argument, given in request.stage.inputs.items()}
    inputs |= {argument: request.in_service[name].directory(Workspace(request.workspace))
               for argument, given in request.stage.in_service.items() for name in named(given)
               if name in request.in_service}
    arguments = request.arguments()
    config = arguments.pop("config")
    result: Result = resolve(f"{request.stage.core}:run")(config, **arguments, **inputs, out_dir=out_dir,
                                                         context=context)
    return result


def cpu_seconds_so_far() -> float:
    """CPU time of this process and of the children that it waited for, in seconds."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system
