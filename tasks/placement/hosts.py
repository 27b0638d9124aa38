"""Several hosts for one training: they meet where the first one, which runs the flow, says, and get the order there.

The first host serves the address for as long as the stage lasts. Each other one runs `genai join ADDRESS`, which takes
one order after the other: it brings the inputs from the registry or the remote where its workspace lacks them, and
starts its share of the ranks. `torchrun` does the rest: it watches the ranks, and where a host is lost the others begin
again from the last checkpoint.
"""

import json
import logging
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
from uuid import uuid4

import psutil

from genai_core.config.pipeline import Runtime
from genai_core.errors import InputError
from genai_core.hardware import choose_device
from genai_core.mapping import usable_cores
from tasks.pipeline import StageRequest
from tasks.placement.inputs import bring_inputs
from tasks.store.workspace import REPOSITORY, Workspace

logger = logging.getLogger("tasks")

LAST_CALL_SECONDS = 15
"""After a host was lost: how long the others wait for one in its place before they go on without."""
RESTARTS = 3
"""How often ranks are started again after one of them died."""
LEAVE_SECONDS = 10.0
CLOCK_SECONDS = 10.0
"""How far the clocks of two hosts may be apart: `torchrun` takes one for dead whose signs of life are 15 s old."""
LOOK_SECONDS = 1.0


def torchrun(runtime: Runtime, order: Path, meeting: str = "") -> list[str]:
    """The command that starts this host's ranks, which meet as `meeting` at `runtime.rendezvous` where there are
    several hosts."""
    where = ["--standalone"] if runtime.hosts == 1 else [
        "--nnodes", f"1:{runtime.hosts}", "--rdzv-backend", "c10d", "--rdzv-endpoint", runtime.rendezvous, "--rdzv-id",
        meeting, "--rdzv-conf",
        f"is_host=0,last_call_timeout={LAST_CALL_SECONDS},join_timeout={runtime.meet_seconds:.0f}",
        "--local-addr", _own_address(runtime.rendezvous)]
    return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node",
            str(runtime.processes // runtime.hosts), "--max-restarts", str(RESTARTS), "--module",
            "tasks.placement.rank", str(order)]


def environment_of_ranks(runtime: Runtime, beside: int = 1) -> dict[str, str]:
    """What ranks need beside this process's environment; `beside`: stages that run at the same time."""
    here = max(1, runtime.processes // runtime.hosts)
    # a store of their own after each start: in that of torchrun PyTorch 2.13 finds addresses of ranks that are gone
    found = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
             "OMP_NUM_THREADS": str(max(1, usable_cores() // max(here, beside)))}
    if runtime.hosts > 1 and (interface := _interface(_own_address(runtime.rendezvous))):
        found |= {"GLOO_SOCKET_IFNAME": interface, "NCCL_SOCKET_IFNAME": interface}
    return {name: value for name, value in found.items() if name not in os.environ}


def require_devices(runtime: Runtime, count: int) -> None:
    """Raises InputError for more ranks than this machine has GPUs, where it has some."""
    import torch

    devices = torch.cuda.device_count()
    if runtime.device in ("auto", "cuda") and 0 < devices < count:
        raise InputError(f"runtime.processes: {count} ranks on a machine, but this one has {devices} GPUs; take "
                         f"{devices}, or runtime.device=cpu")
    if count > 1 and choose_device(runtime.device).type == "mps":
        raise InputError("runtime.processes: a Mac's GPU trains in one process; leave it at 1, or runtime.device=cpu")


class Meeting:
    """On the first host: the address that it serves for one stage, with the order to the others."""

    def __init__(self, request: StageRequest):
        from torch.distributed import DistError, TCPStore

        self.name = uuid4().hex
        self._address, self._others = request.runtime.rendezvous, request.runtime.hosts - 1
        self._seconds = request.runtime.meet_seconds
        host, port = _host_and_port(self._address)
        if (own := _own_address(self._address)).startswith("127.") and host != "localhost" and host != own:
            raise InputError(f"runtime.rendezvous {self._address}: on this machine {host} means {own}, where no other "
                             "one comes; give an IP address, or mend /etc/hosts")
        try:
            self._store: Any = TCPStore(host, port, is_master=True, wait_for_workers=False,
                                        timeout=timedelta(seconds=30))
        except (DistError, RuntimeError) as error:
            raise InputError(f"runtime.rendezvous {self._address}: this host cannot serve it "
                             f"({str(error).splitlines()[0]}); give an address of this machine and a free port"
                             ) from None
        self._store.set("order", json.dumps({"meeting": self.name, "request": request.model_dump(mode="json")}))

    def __enter__(self) -> "Meeting":
        return self

    def __exit__(self, *_: object) -> None:
        """The others end their ranks when the address is gone."""
        self._store = None

    def wait(self) -> None:
        """Until the others have come. Raises InputError after `runtime.meet_seconds`, with what one of them says, and
        for one whose clock is another's."""
        began, greeted = time.monotonic(), 0
        while greeted < self._others:
            self.raise_trouble()
            if greeted < self._store.add("came", 0):
                greeted += 1
                name, clock = json.loads(self._store.get(f"host-{greeted}"))
                if (apart := abs(time.time() - clock)) > CLOCK_SECONDS:
                    raise InputError(f"{name}: its clock and this host's are {apart:.0f} s apart, and ranks that are "
                                     "alive seem dead; set the clocks")
            elif time.monotonic() - began > self._seconds:
                raise InputError(f"runtime.hosts: {greeted} of {self._others} other hosts have come to {self._address} "
                                 f"within {self._seconds:.0f} s; run `genai join {self._address}` on each of them")
            else:
                time.sleep(LOOK_SECONDS / 10)

    def wait_for_leaving(self) -> None:
        """Let the others see the end of their ranks before the address is gone."""
        deadline = time.monotonic() + LEAVE_SECONDS
        while self._store.add("left", 0) < self._store.add("came", 0) and time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS / 10)

    def raise_trouble(self) -> None:
        """Raises InputError with what went wrong on another host."""
        if trouble := self.trouble():
            raise InputError(trouble)

    def trouble(self) -> str:
        store = self._store      # gone when the meeting is over
        return store.get("trouble").decode() if store and store.check(["trouble"]) else ""


def join(address: str, workspace: Workspace, tell: Callable[[str], None], idle_seconds: float = float("inf")) -> None:
    """On another host: take part in every training that the first host asks for at `address`, until this process is
    ended, or nobody has asked for `idle_seconds`. Raises InputError for what is no address."""
    host, port = _host_and_port(address)
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
        store.set(f"host-{store.add('numbers', 1)}", json.dumps([socket.gethostname(), time.time()]))
        store.add("came", 1)
        tell(f"{what}: {_take_part(request, meeting, store, tell)}")
    except InputError as error:
        tell(str(error))
        store.set("trouble", f"{socket.gethostname()}: {error}")


def _take_part(request: StageRequest, meeting: str, store: Any, tell: Callable[[str], None]) -> str:
    with tempfile.TemporaryDirectory(prefix="ranks-") as folder, (Path(folder) / "errors").open("w") as errors:
        order = Path(folder) / "order.json"
        checkpoints = Workspace(request.workspace).checkpoints / request.stage.name / request.parts.key
        order.write_text(json.dumps({"request": request.model_dump(mode="json"), "out_dir": folder,
                                     "checkpoint_dir": str(checkpoints)}))
        process = subprocess.Popen(
            [sys.executable, "-m", "tasks.placement.lifeline", *torchrun(request.runtime, order, meeting)],
            cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True,
            env={**os.environ, **environment_of_ranks(request.runtime), "GENAI_HOME": str(request.workspace)})
        first_is_gone = threading.Event()
        threading.Thread(target=_end_with_the_first, args=(store, process, first_is_gone), daemon=True).start()
        assert process.stdout
        for line in process.stdout:
            with suppress(ValueError, KeyError, TypeError):
                said = json.loads(line)
                if said["rank_says"] == "error":
                    store.set("trouble", f"{socket.gethostname()}: {said['text']}")
                continue
            tell(line.rstrip())
        if (status := process.wait()) and not first_is_gone.is_set():
            tell(last_lines(Path(folder) / "errors"))
        with suppress(RuntimeError):
            store.add("left", 1)
        return "ended by the first host" if first_is_gone.is_set() else f"over, with status {status}"


def last_lines(path: Path, count: int = 40) -> str:
    """The end of what processes wrote to their standard error."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def _end_with_the_first(store: Any, process: "subprocess.Popen[str]", first_is_gone: threading.Event) -> None:
    """End this host's ranks when the first host serves the address no more: the stage is over, or it is lost."""
    assert process.stdin
    while process.poll() is None:
        try:
            store.check(["order"])
        except RuntimeError:
            first_is_gone.set()
            with suppress(OSError):
                process.stdin.close()      # the lifeline ends them when it cannot read on
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


def _host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{address}: not an address where hosts meet; write it as HOST:PORT, e.g. gpu-1:29400")
    return host.strip("[]"), int(port)


def _own_address(address: str) -> str:
    """This host's address as seen from where the hosts meet. Raises InputError for a host that has none."""
    try:
        found = socket.getaddrinfo(*_host_and_port(address), type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])      # sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InputError(f"{address}: this host knows no way there ({error})") from None


def _interface(address: str) -> str:
    """Name of the network interface that has an address; empty where none has."""
    return next((name for name, given in psutil.net_if_addrs().items()
                 if any(each.address.partition("%")[0] == address for each in given)), "")
