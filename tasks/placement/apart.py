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
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from genai_core.config.runtime import Runtime
from genai_core.context import Context, Result
from genai_core.errors import BudgetSpent, InputError, TrainingDiverged
from tasks.pipeline import StageRequest
from tasks.placement.meeting import LOOK_SECONDS, Meeting
from tasks.placement.torchrun import (
    RESTARTS,
    end,
    environment_of_ranks,
    last_lines,
    let_go,
    require_devices,
    torchrun,
)
from tasks.stage import Stage
from tasks.store.workspace import REPOSITORY

logger = logging.getLogger("tasks")

ERRORS: dict[str, type[Exception]] = {error.__name__: error for error in (InputError, TrainingDiverged, BudgetSpent)}
"""What a rank raises that is told in its own words."""

_under_way: set["subprocess.Popen[str]"] = set()
_taken: Counter[int] = Counter()
"""Stages side by side on each GPU."""
ending = threading.Event()
"""The run is interrupted: nothing begins, and what is waited for is waited for no more."""
_taking = threading.Lock()


def runs_apart(stage: Stage, runtime: Runtime) -> bool:
    """Whether a stage is computed outside this process: datasets are not, which have processes of their own."""
    if stage.kind == "dataset":
        return False
    return runtime.stages_at_once > 1 or (runtime.processes > 1 and stage.resources.ranks)


def compute_apart(request: StageRequest, out_dir: Path, context: Context) -> Result:
    """As `compute` does, in a process of its own or on `runtime.processes` ranks. Raises what a rank raised, and
    RankDied. The result has `cpu_seconds`, of all ranks."""
    runtime = request.runtime
    count = runtime.processes if request.stage.resources.ranks else 1
    require_devices(runtime, count // runtime.hosts)
    context.checkpoint_dir.mkdir(parents=True, exist_ok=True)      # what is left of a killed run goes with them
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="ranks-", dir=context.checkpoint_dir)))
        gpu = stack.enter_context(_a_gpu(request))
        errors = stack.enter_context((folder / "errors").open("w"))
        order = folder / "order.json"
        order.write_text(json.dumps({"request": request.model_dump(mode="json"), "out_dir": str(out_dir),
                                     "checkpoint_dir": str(context.checkpoint_dir)}))
        meeting = stack.enter_context(Meeting(request)) if count > 1 and runtime.hosts > 1 else None
        if meeting:
            context.reporter.note(f"waiting at {runtime.rendezvous} for {runtime.hosts - 1} other hosts: genai join "
                                  f"{runtime.rendezvous}")
            meeting.wait()
        command = torchrun(runtime, order, meeting.name if meeting else "") if count > 1 else \
            [sys.executable, "-m", "tasks.placement.rank", str(order)]
        if ending.is_set():
            raise KeyboardInterrupt
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.placement.lifeline", *command], cwd=REPOSITORY, stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, **environment_of_ranks(runtime, runtime.stages_at_once), **gpu, "LEADING_HOST": "1",
                 "GENAI_HOME": str(request.workspace)})
        _under_way.add(process)
        ranks = _Ranks(process, context, meeting)
        try:
            return ranks.result()
        except RankDied:
            if ending.is_set():
                raise KeyboardInterrupt from None
            logger.error("%s", last_lines(folder / "errors"))
            raise
        finally:
            ranks.end()
            _under_way.discard(process)


def end_all() -> None:
    """Let all stages that are computed apart save a checkpoint and end; whoever waits for one is interrupted."""
    ending.set()
    for process in list(_under_way):
        let_go(process)


@contextmanager
def _a_gpu(request: StageRequest) -> Iterator[dict[str, str]]:
    """What makes a stage that runs beside others see one GPU, the least used of them."""
    import torch

    visible = os.environ["CUDA_VISIBLE_DEVICES"].split(",") if "CUDA_VISIBLE_DEVICES" in os.environ else \
        [str(number) for number in range(torch.cuda.device_count())]
    if request.runtime.stages_at_once == 1 or len(visible) < 2 or not request.stage.resources.devices:
        yield {}
        return
    with _taking:
        number = min(range(len(visible)), key=lambda each: _taken[each])
        _taken[number] += 1
    try:
        yield {"CUDA_VISIBLE_DEVICES": visible[number]}
    finally:
        with _taking:
            _taken[number] -= 1


class RankDied(RuntimeError):
    """A process ended without a word, of several ranks one too often."""


class _Ranks:
    """The processes that compute a stage, as this one hears them."""

    def __init__(self, process: "subprocess.Popen[str]", context: Context, meeting: Meeting | None):
        self.process, self.context, self.meeting = process, context, meeting
        self._step, self._known = -1, -1
        """The newest step that was told of, and the one up to which a start after a death tells all again."""

    def result(self) -> Result:
        """What they come to. Raises what one of them, here or on another host, says is wrong; RankDied."""
        if self.meeting:
            threading.Thread(target=self._watch, args=(self.meeting,), daemon=True).start()
        assert self.process.stdout
        for line in self.process.stdout:
            kind, content = self._heard(line)
            if kind == "result":
                if self.meeting:
                    self.meeting.wait_for_leaving()
                self.process.wait()
                return Result(content["metrics"], {**content["measurements"], "cpu_seconds": content["cpu_seconds"]})
            if kind == "error":
                raise ERRORS.get(content["type"], RuntimeError)(content["text"])
        if self.meeting:
            self.meeting.raise_trouble()
        raise RankDied(f"the processes of this stage ended with status {self.process.wait()}: one died, of several "
                       f"ranks more than {RESTARTS} times, perhaps for lack of memory; the last checkpoint is kept")

    def end(self) -> None:
        """Let ranks that still run save a checkpoint; what is left of them after a grace is killed."""
        threading.Thread(target=self._hear_out, daemon=True).start()      # a full pipe would hold them up
        end(self.process)

    def _hear_out(self) -> None:
        with suppress(ValueError):      # closed meanwhile
            for line in self.process.stdout or ():
                self._heard(line)

    def _heard(self, line: str) -> tuple[str, dict[str, Any]]:
        """What a line says, passed on to those whom it concerns."""
        try:
            said: dict[str, Any] = json.loads(line)
            kind = said.pop("rank_says")
        except (ValueError, KeyError, TypeError, AttributeError):
            logger.info("%s", line.rstrip())
            return "", {}
        reporter = self.context.reporter
        if kind == "progress":
            reporter.progress(said["done"], said["total"], said["unit"], **said["figures"])
        elif kind == "metrics":
            if said["step"] < self._step:
                self._known = max(self._known, self._step)
            self._step = said["step"]
            if self._step > self._known:
                reporter.metrics(self._step, **said["values"])
        elif kind == "note":
            reporter.note(said["text"])
        elif kind == "began" and self.meeting:
            self.meeting.ranks_began()
        elif kind == "log":
            logger.log(said["level"], "%s", said["text"])
        return kind, said

    def _watch(self, meeting: Meeting) -> None:
        """End the ranks here when another host says what is wrong; begin again without one that has fallen silent."""
        while self.process.poll() is None:
            time.sleep(LOOK_SECONDS)
            if meeting.trouble():
                let_go(self.process)
                return
            for host in meeting.fallen_silent():
                self.context.reporter.note(f"no sign of life of {host}: beginning again without it, from the last "
                                           "checkpoint")
                self._lose_a_rank()

    def _lose_a_rank(self) -> None:
        """`torchrun` starts all again when one is gone: they wait for a host that will not answer."""
        processes: list[psutil.Process] = []
        with suppress(psutil.NoSuchProcess):
            processes = psutil.Process(self.process.pid).children(recursive=True)
        for each in processes:
            with suppress(psutil.NoSuchProcess):
                if "torch.distributed.run" not in each.cmdline() and "tasks.placement.rank" in each.cmdline():
                    each.kill()
                    return
