"""A stage outside this process: in one of its own, or on several ranks that `torchrun` starts and watches.

This process keeps the lock, the books and the artifact; the others compute, and the first of them tells it what a stage
tells its reporter, as lines of JSON on standard output. When a rank dies the others are ended and all begin again from
the last checkpoint, RESTARTS times at most. When this process dies, by whatever signal, all of them do.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from genai_core.config.pipeline import Runtime
from genai_core.context import Context, Result
from genai_core.errors import BudgetSpent, InputError, TrainingDiverged
from tasks.execution.hosts import LOOK_SECONDS, RESTARTS, Meeting, environment_of_ranks, last_lines, torchrun
from tasks.pipeline import StageRequest
from tasks.stage import Stage
from tasks.store.workspace import REPOSITORY

logger = logging.getLogger("tasks")

GRACE_SECONDS = 30.0
"""How long ranks may take to save a checkpoint before they are killed."""
ERRORS: dict[str, type[Exception]] = {error.__name__: error for error in (InputError, TrainingDiverged, BudgetSpent)}
"""What a rank raises that is told in its own words."""

_under_way: set["subprocess.Popen[str]"] = set()
_taken: set[int] = set()
"""GPUs that stages side by side have."""
_taking = threading.Lock()


def runs_apart(stage: Stage, runtime: Runtime) -> bool:
    """Whether a stage is computed outside this process: datasets are not, which have processes of their own."""
    if stage.kind == "dataset":
        return False
    return runtime.stages_at_once > 1 or (runtime.processes > 1 and stage.resources.ranks)


def compute_apart(request: StageRequest, out_dir: Path, context: Context) -> Result:
    """As `compute` does, in a process of its own or on `runtime.processes` ranks. Raises what a rank raised;
    RuntimeError when one died, of several too often. The result has `cpu_seconds`, of all ranks."""
    runtime = request.runtime
    count = runtime.processes if request.stage.resources.ranks else 1
    _require_devices(runtime, count // runtime.hosts)
    meeting = Meeting(request) if count > 1 and runtime.hosts > 1 else None
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, _a_gpu(request) as gpu, \
            (Path(folder) / "errors").open("w") as errors:
        order = Path(folder) / "order.json"
        order.write_text(json.dumps({"request": request.model_dump(mode="json"), "out_dir": str(out_dir),
                                     "checkpoint_dir": str(context.checkpoint_dir)}))
        if meeting:
            context.reporter.note(f"waiting at {runtime.rendezvous} for {runtime.hosts - 1} other hosts: genai join "
                                  f"{runtime.rendezvous}")
            meeting.wait()
        command = torchrun(runtime, order, meeting.name if meeting else "") if count > 1 else \
            [sys.executable, "-m", "tasks.execution.rank", str(order)]
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.execution.lifeline", *command], cwd=REPOSITORY, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, **environment_of_ranks(runtime, runtime.stages_at_once), **gpu, "LEADING_HOST": "1",
                 "GENAI_HOME": str(request.workspace)})
        _under_way.add(process)
        over = False
        try:
            result = _listen(process, context, count, meeting)
            over = True
            return result
        except RuntimeError as error:
            let_go = process.stdin is None or process.stdin.closed
            if type(error) is RuntimeError and not let_go:
                logger.error("%s", last_lines(Path(folder) / "errors"))
            raise
        finally:
            if meeting:
                meeting.close(over)
            _end(process)
            _under_way.discard(process)


def end_all() -> None:
    """Let all stages that are computed apart save a checkpoint and end; whoever waits for one gets an error."""
    for process in list(_under_way):
        _let_go(process)


def _require_devices(runtime: Runtime, count: int) -> None:
    import torch

    devices = torch.cuda.device_count()
    if runtime.device in ("auto", "cuda") and 0 < devices < count:
        raise InputError(f"runtime.processes: {count} ranks on a machine, but this one has {devices} GPUs; take "
                         f"{devices}, or runtime.device=cpu")
    if runtime.device == "mps" and count > 1:
        raise InputError("runtime.processes: a Mac's GPU trains in one process; leave it at 1")


@contextmanager
def _a_gpu(request: StageRequest) -> Iterator[dict[str, str]]:
    """What makes a stage that runs beside others see one GPU, the first that none of them has."""
    import torch

    visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",") if "CUDA_VISIBLE_DEVICES" in os.environ else \
        [str(number) for number in range(torch.cuda.device_count())]
    if request.runtime.stages_at_once == 1 or len(visible) < 2 or not request.stage.resources.devices:
        yield {}
        return
    with _taking:
        number = min(set(range(len(visible))) - _taken, default=len(_taken) % len(visible))
        _taken.add(number)
    try:
        yield {"CUDA_VISIBLE_DEVICES": visible[number]}
    finally:
        _taken.discard(number)


def _listen(process: "subprocess.Popen[str]", context: Context, count: int, meeting: Meeting | None) -> Result:
    """What the ranks say, until they are done or one of them, here or on another host, says what is wrong."""
    assert process.stdout
    if meeting:
        threading.Thread(target=_watch, args=(meeting, process), daemon=True).start()
    for line in process.stdout:
        try:
            said: dict[str, Any] = json.loads(line)
            kind, content = said.pop("rank_says"), said
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.info("%s", line.rstrip())
            continue
        if kind == "progress":
            context.reporter.progress(content["done"], content["total"], content["unit"], **content["figures"])
        elif kind == "metrics":
            context.reporter.metrics(content["step"], **content["values"])
        elif kind == "note":
            context.reporter.note(content["text"])
        elif kind == "result":
            process.wait()
            return Result(content["metrics"], {**content["measurements"], "cpu_seconds": content["cpu_seconds"]})
        elif kind == "error":
            raise ERRORS.get(content["type"], RuntimeError)(content["text"])
    if meeting:
        meeting.raise_trouble()
    often = f" more than {RESTARTS} times" if count > 1 else ""
    raise RuntimeError(f"the {'ranks' if count > 1 else 'process'} ended with status {process.wait()}: it died{often}, "
                       "perhaps for lack of memory; the last checkpoint is kept")


def _watch(meeting: Meeting, process: "subprocess.Popen[str]") -> None:
    """End the ranks here when another host says what is wrong."""
    while process.poll() is None:
        time.sleep(LOOK_SECONDS)
        with suppress(AttributeError):      # closed: it is over
            if meeting.trouble():
                _let_go(process)
                return


def _end(process: "subprocess.Popen[str]") -> None:
    """Let ranks that still run save a checkpoint; what is left of them after a grace is killed."""
    assert process.stdout
    _let_go(process)
    threading.Thread(target=process.stdout.read, daemon=True).start()      # a full pipe would hold them up
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _let_go(process: "subprocess.Popen[str]") -> None:
    assert process.stdin
    with suppress(OSError):
        process.stdin.close()      # the lifeline ends them when it cannot read on
