"""A training stage on several processes of this machine, which `torchrun` starts, watches and starts again.

This process keeps the lock, the books and the artifact; the ranks compute, and the first of them tells it what a stage
tells its reporter, as lines of JSON on standard output. When a rank dies the others are ended and all begin again from
the last checkpoint, RESTARTS times at most. When this process dies, by whatever signal, all ranks do.
"""

import json
import logging
import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

from genai_core.context import Context, Result
from genai_core.errors import BudgetSpent, InputError, TrainingDiverged
from genai_core.mapping import usable_cores
from tasks.pipeline import StageRequest
from tasks.store.workspace import REPOSITORY

logger = logging.getLogger("tasks")

RESTARTS = 3
"""How often ranks are started again after one of them died."""
GRACE_SECONDS = 30.0
"""How long ranks may take to save a checkpoint before they are killed."""
ERRORS: dict[str, type[Exception]] = {error.__name__: error for error in (InputError, TrainingDiverged, BudgetSpent)}
"""What a rank raises that is told in its own words."""


def compute_on_ranks(request: StageRequest, out_dir: Path, context: Context) -> Result:
    """As `compute` does, on `runtime.processes` ranks. Raises what a rank raised; RuntimeError when ranks died too
    often."""
    count = request.runtime.processes
    _require_devices(request)
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder:
        order = Path(folder) / "order.json"
        order.write_text(json.dumps({"request": request.model_dump(mode="json"), "out_dir": str(out_dir),
                                     "checkpoint_dir": str(context.checkpoint_dir)}))
        command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count),
                   "--max-restarts", str(RESTARTS), "--module", "tasks.execution.rank", str(order)]
        threads = str(max(1, usable_cores() // count))
        process = subprocess.Popen([sys.executable, "-m", "tasks.execution.lifeline", *command], cwd=REPOSITORY,
                                   stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                   env={"OMP_NUM_THREADS": threads, **os.environ, "GENAI_HOME": str(request.workspace)})
        try:
            return _listen(process, context)
        finally:
            _end(process)


def _require_devices(request: StageRequest) -> None:
    import torch

    count, devices = request.runtime.processes, torch.cuda.device_count()
    if request.runtime.device in ("auto", "cuda") and 0 < devices < count:
        raise InputError(f"runtime.processes: {count} ranks, but this machine has {devices} GPUs; take {devices}, or "
                         "runtime.device=cpu")
    if request.runtime.device == "mps":
        raise InputError("runtime.processes: a Mac's GPU trains in one process; leave it at 1")


def _listen(process: "subprocess.Popen[str]", context: Context) -> Result:
    """What the ranks say, until they are done or one of them says what is wrong."""
    assert process.stdout
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
            return Result(content["metrics"], content["measurements"])
        elif kind == "error":
            raise ERRORS.get(content["type"], RuntimeError)(content["text"])
    raise RuntimeError(f"the ranks ended with status {process.wait()}: one of them died more than {RESTARTS} times, "
                       "perhaps for lack of memory; the last checkpoint is kept")


def _end(process: "subprocess.Popen[str]") -> None:
    """Let ranks that still run save a checkpoint; what is left of them after a grace is killed."""
    assert process.stdin and process.stdout
    with suppress(OSError):
        process.stdin.close()      # the lifeline ends them when it cannot read on
    threading.Thread(target=process.stdout.read, daemon=True).start()      # a full pipe would hold them up
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
