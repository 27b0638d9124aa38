"""One rank of a training stage: `python -m tasks.placement.rank ORDER`, started by `torchrun` or alone (`apart.py`)."""

import os

PARENT = os.getppid()
"""Read before the slow imports: `torchrun`, or the lifeline."""

# ruff: noqa: E402
import hashlib
import json
import logging
import socket
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import psutil
import torch
import torch.distributed as dist

from genai_core.context import Result
from genai_core.errors import InputError
from genai_core.training.ranks import Ranks, joined
from tasks.pipeline import StageRequest
from tasks.placement.apart import ERRORS
from tasks.placement.compute import compute, context_of, cpu_seconds_so_far
from tasks.store.fingerprint import code_fingerprint

COLLECTIVE_SECONDS = 1800.0
"""How long ranks wait for each other: to meet, for a large checkpoint to be read or written, or a compilation.
`torchrun` sees sooner when one is dead."""
GIVE_UP_SECONDS = 120.0


class ToParent:
    """Tells the process that started the ranks what a stage tells its reporter."""

    def progress(self, done: float, total: float, unit: str, **figures: float) -> None:
        say("progress", done=done, total=total, unit=unit, figures=figures)

    def metrics(self, step: int, **values: float) -> None:
        say("metrics", step=step, values=values)

    def note(self, text: str) -> None:
        say("note", text=text)


class Silent:
    """The reporter of all ranks of a training but the first."""

    def progress(self, done: float, total: float, unit: str, **figures: float) -> None: ...

    def metrics(self, step: int, **values: float) -> None: ...

    def note(self, text: str) -> None: ...


class OnlyNotes(Silent):
    """That of a rank which does something of its own."""

    def note(self, text: str) -> None:
        say("note", text=text)


def say(kind: str, **content: Any) -> None:
    print(json.dumps({"rank_says": kind, **content}), flush=True)


def main(order: Path) -> None:
    threading.Thread(target=_end_with_parents, daemon=True).start()
    given = json.loads(order.read_text())
    request = StageRequest.model_validate(given["request"])
    on_gpu = request.runtime.device != "cpu" and torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        with joined("cpu:gloo,cuda:nccl" if on_gpu else "gloo", COLLECTIVE_SECONDS) as ranks, \
                tempfile.TemporaryDirectory() as scratch:
            if ranks.leads:
                _tell_log()
                say("began")
            _require_the_same(request, ranks)
            result = _compute(request, given, ranks, Path(scratch))
            ranks.wait()
            seconds = ranks.all_reduce({"cpu": torch.tensor(cpu_seconds_so_far())})["cpu"].item()
        if ranks.leads:
            say("result", metrics=dict(result.metrics), measurements=dict(result.measurements), cpu_seconds=seconds)
    except tuple(ERRORS.values()) as error:
        _give_up(type(error).__name__, str(error))
    except torch.OutOfMemoryError as error:
        first = str(error).partition(". ")[0]
        advice = "more accumulation_steps, runtime.recompute_activations=true, or more ranks" \
            if request.stage.kind == "model" else "nothing else must run on this GPU"
        _give_up("InputError", f"rank {os.environ.get('RANK', 0)} on {socket.gethostname()}: {first}; {advice}")
    except Exception as error:
        if isinstance(error, RuntimeError | ConnectionError) and "RANK" in os.environ:
            raise      # what a rank meets when another one dies: `torchrun` starts all again
        traceback.print_exc()
        _give_up("RuntimeError", f"{type(error).__name__}: {error}")


def _give_up(kind: str, text: str) -> None:
    say("error", type=kind, text=text)
    time.sleep(GIVE_UP_SECONDS)      # the parent ends all ranks; ending alone would start them again


def _compute(request: StageRequest, given: dict[str, Any], ranks: Ranks, scratch: Path) -> Result:
    others = OnlyNotes() if request.stage.kind == "report" else Silent()
    context = context_of(request, Path(given["checkpoint_dir"]), ToParent() if ranks.leads else others)
    return compute(request, Path(given["out_dir"]) if ranks.leads else scratch, context)


def _require_the_same(request: StageRequest, ranks: Ranks) -> None:
    """Raises InputError when a rank has other code than the leader, or works for another key."""
    text = json.dumps([request.parts.key, code_fingerprint(request.stage.core)], sort_keys=True)
    own = torch.tensor(list(hashlib.sha256(text.encode()).digest()))
    firsts = own.clone()
    if ranks.count > 1:
        dist.broadcast(firsts, ranks.leader)
    if not torch.equal(own, firsts):
        raise InputError(f"rank {ranks.rank} on {socket.gethostname()} has other code of {request.stage.name} than the "
                         "first; bring all machines to the same commit")


class ToParentsLog(logging.Handler):
    """Hands what the leader logs to the process that started the ranks."""

    def emit(self, record: logging.LogRecord) -> None:
        say("log", level=record.levelno, text=record.getMessage())


def _tell_log() -> None:
    for name in ("genai_core", "tasks"):
        logging.getLogger(name).setLevel(logging.INFO)
        logging.getLogger(name).addHandler(ToParentsLog())


def _end_with_parents() -> None:
    """End this rank when what started it is no more, in the middle of a step if need be."""
    lifeline = int(os.environ.get("LIFELINE", "0"))
    while os.getppid() == PARENT and (not lifeline or _lives(lifeline)):
        time.sleep(0.5)
    os._exit(1)


def _lives(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


if __name__ == "__main__":
    main(Path(sys.argv[1]))
