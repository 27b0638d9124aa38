"""Another host takes part: `genai join ADDRESS` takes one order after the other where the first host serves them.

It brings the inputs from the registry or the remote where its workspace lacks them, and starts its share of the ranks.
`torchrun` does the rest: it watches the ranks, and where a host is lost the others begin again from the last
checkpoint.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

from genai_core.errors import InputError
from tasks.pipeline import StageRequest
from tasks.placement.inputs import bring_inputs
from tasks.placement.meeting import LEFT, LOOK_SECONDS, alive
from tasks.placement.torchrun import (
    end,
    environment_of_ranks,
    host_and_port,
    last_lines,
    let_go,
    require_devices,
    torchrun,
)
from tasks.store.workspace import REPOSITORY, Workspace


def join(address: str, workspace: Workspace, tell: Callable[[str], None], idle_seconds: float = float("inf")) -> None:
    """On another host: take part in every training that the first host asks for at `address`, until this process is
    ended, or nobody has asked for `idle_seconds`. Raises InputError for what is no address."""
    host, port = host_and_port(address)
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")      # PyTorch warns, with its stack, when the first host goes
    done, asked = "", time.monotonic()
    while time.monotonic() - asked < idle_seconds:
        store = _connected(host, port)
        try:
            given: dict[str, Any] = json.loads(store.get("order")) if store else {}
            if given.get("meeting", done) != done:
                done = given["meeting"]
                request = StageRequest.model_validate({**given["request"], "workspace": str(workspace.root)})
                _answer(request, done, store, tell)
                asked = time.monotonic()
        except RuntimeError as error:
            tell(f"the first host is gone ({str(error).splitlines()[0]})")
        store = None
        time.sleep(LOOK_SECONDS)


def _answer(request: StageRequest, meeting: str, store: Any, tell: Callable[[str], None]) -> None:
    what, here = f"{request.parts.stage} {request.parts.key}", request.runtime.processes // request.runtime.hosts
    tell(f"{what}: {here} of {request.runtime.processes} ranks here")
    try:
        require_devices(request.runtime, here)
        bring_inputs(request)
        number = store.add("numbers", 1)
        store.set(f"host-{number}", json.dumps([socket.gethostname(), time.time()]))
        store.add("came", 1)
        tell(f"{what}: {_take_part(request, meeting, store, number, tell)}")
    except InputError as error:
        tell(str(error))
        store.set("trouble", f"{socket.gethostname()}: {error}")


def _take_part(request: StageRequest, meeting: str, store: Any, number: int, tell: Callable[[str], None]) -> str:
    checkpoints = Workspace(request.workspace).checkpoints / request.stage.name / request.parts.key
    checkpoints.mkdir(parents=True, exist_ok=True)
    with (tempfile.TemporaryDirectory(prefix="ranks-", dir=checkpoints) as folder,
          (Path(folder) / "errors").open("w") as errors):
        order = Path(folder) / "order.json"
        order.write_text(json.dumps({"request": request.model_dump(mode="json"), "out_dir": folder,
                                     "checkpoint_dir": str(checkpoints)}))
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.placement.lifeline", *torchrun(request.runtime, order, meeting)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, **environment_of_ranks(request.runtime), "GENAI_HOME": str(request.workspace)})
        first = _FirstHost(store, number, process, request.runtime.silent_seconds)
        assert process.stdout
        try:
            for line in process.stdout:
                with suppress(ValueError, KeyError, TypeError):
                    said = json.loads(line)
                    if said["rank_says"] == "error":
                        first.trouble = f"{socket.gethostname()}: {said['text']}"
                    elif said["rank_says"] == "note":
                        tell(said["text"])
                    continue
                tell(line.rstrip())
            if (status := process.wait()) and not first.gone.is_set():
                tell(last_lines(Path(folder) / "errors"))
        finally:
            end(process)
            first.leave()
        return "ended by the first host" if first.gone.is_set() else f"over, with status {status}"


class _FirstHost:
    """The first host as this one hears it: it is given signs of life, and while it answers the ranks here go on.

    When it serves the address no more, the stage is over, or it is lost; when it falls silent, no socket says so, and
    whoever asks it something waits.
    """

    def __init__(self, store: Any, number: int, process: "subprocess.Popen[str]", silent_seconds: float):
        self.gone = threading.Event()
        self.trouble = ""
        """What is wrong with a rank here; it is told with the next sign of life."""
        self._store, self._number, self._process, self._silent_seconds = store, number, process, silent_seconds
        self._answered = time.monotonic()
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        threading.Thread(target=self._watch, daemon=True).start()

    def leave(self) -> None:
        """Tell it that the ranks here have ended."""
        self._beating.join(2 * LOOK_SECONDS)
        if not self.gone.is_set() and not self._beating.is_alive():
            with suppress(RuntimeError):
                self._store.set(alive(self._number), LEFT)
                self._store.add("left", 1)

    def _beat(self) -> None:
        beats = 0
        while self._process.poll() is None and not self.gone.is_set():
            beats += 1
            try:
                self._store.set(alive(self._number), str(beats))
                if self.trouble:
                    self._store.set("trouble", self.trouble)
                self._store.check(["order"])      # waits for an answer
            except RuntimeError:
                self.gone.set()
                return
            self._answered = time.monotonic()
            time.sleep(LOOK_SECONDS)

    def _watch(self) -> None:
        while self._process.poll() is None:
            if self.gone.is_set() or time.monotonic() - self._answered > self._silent_seconds:
                self.gone.set()
                let_go(self._process)
                return
            time.sleep(LOOK_SECONDS)


def _connected(host: str, port: int) -> Any:
    from torch.distributed import DistError, TCPStore

    try:
        with socket.create_connection((host, port), 5):      # its own attempts fill the terminal
            pass
        return TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=30))
    except (DistError, RuntimeError, OSError):
        return None
