"""One stage of a run that another machine asked for: `runtime.placement` of the run names this machine's work pool.

Each of the two holds a lease, by which the other sees that it lives. The stage ends, with a checkpoint, when whoever
asked is gone, and when they have given it up.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from prefect import flow
from prefect.logging.handlers import APILogHandler

from genai_core.errors import InputError
from tasks.execution.execute import execute
from tasks.lease import LOOK_SECONDS, SignsOfLife, lease, place
from tasks.pipeline import StageRequest
from tasks.placement.elsewhere import OWN_LOGS, asker_of, worker_of
from tasks.placement.inputs import bring_inputs
from tasks.registry import versions
from tasks.store import checkpoints, published
from tasks.store.workspace import Workspace
from tasks.tracking.curves import Repeating

logger = logging.getLogger("tasks")


@flow(name="execute-stage")
def execute_stage(request: dict[str, Any], asked_from: str = "") -> str:
    """Make the artifact of a request in this machine's workspace, and leave it where others fetch it; its digest.

    Args:
        request: A StageRequest as JSON, without the workspace.
        asked_from: What tells the workspace of whoever asks from all others.
    """
    workspace = Workspace.current()
    if asked_from == place(workspace):      # whoever asks holds the lock of the key and waits for us
        raise InputError(f"runtime.placement: this worker has the workspace of the run, {workspace.root}; give it one "
                         "of its own (GENAI_HOME), or leave the placement out")
    asked = StageRequest.model_validate({**request, "workspace": str(workspace.root)})
    _tell_prefect_the_logs()
    here = asked.model_copy(update={"runtime": asked.runtime.model_copy(update={"placement": {}})})
    end = _Once()
    with lease(workspace, worker_of(here.stage.name), here.parts.key, on_loss=end), _while_somebody_asks(here, end):
        bring_inputs(here)
        artifact, _ = execute(here)
        if here.stage.kind == "model":
            versions.register(workspace, here.stage, artifact, here.identity.parent_run_id, here.identity.dataset_md5)
            checkpoints.discard(workspace, here.stage.name, artifact.key)
        else:
            published.publish(workspace, [artifact])
    return artifact.digest


@contextmanager
def _while_somebody_asks(request: StageRequest, end: Callable[[], None]) -> Iterator[None]:
    """End this process when the run that asked is gone. Raises InputError when it is from the start."""
    stage = request.stage.name
    signs = SignsOfLife(asker_of(stage), request.parts.key)
    signs.look(patiently=True)
    if not signs.seen:
        raise InputError(f"{stage}: the run that asked for it is gone; start it again")

    def look() -> None:
        signs.look()
        if signs.unchanged * LOOK_SECONDS > request.runtime.silent_seconds:
            logger.warning("%s: no sign of life of the run that asked for it", stage)
            end()

    looking = Repeating(LOOK_SECONDS, look)
    try:
        yield
    finally:
        looking.stop()


def _tell_prefect_the_logs() -> None:
    """From there they come to whoever asked; the environment of a worker need not say so."""
    for name in OWN_LOGS:
        own = logging.getLogger(name)
        own.setLevel(min(own.level or logging.INFO, logging.INFO))
        if not any(isinstance(handler, APILogHandler) for handler in own.handlers):
            own.addHandler(APILogHandler())


class _Once:
    """Ends this process as if somebody had cancelled it, so that training saves a checkpoint first. A second signal
    would cut through that."""

    def __init__(self) -> None:
        self._done = threading.Event()

    def __call__(self) -> None:
        if not self._done.is_set():
            self._done.set()
            os.kill(os.getpid(), signal.SIGTERM)
