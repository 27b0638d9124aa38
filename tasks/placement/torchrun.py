"""The command that starts this machine's ranks, and what they need around them."""

import os
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from genai_core.config.runtime import Runtime
from genai_core.errors import InputError
from genai_core.hardware import choose_device
from genai_core.mapping import usable_cores

LAST_CALL_SECONDS = 15
"""After a host was lost: how long the others wait for one in its place before they go on without."""
GRACE_SECONDS = 30.0
"""How long ranks may take to save a checkpoint before they are killed."""
RESTARTS = 3
"""How often ranks are started again after one of them died."""


def torchrun(runtime: Runtime, order: Path, meeting: str = "") -> list[str]:
    """The command that starts this host's ranks, which meet as `meeting` at `runtime.rendezvous` where there are
    several hosts."""
    where = ["--standalone"] if runtime.hosts == 1 else [
        "--nnodes", f"1:{runtime.hosts}", "--rdzv-backend", "c10d", "--rdzv-endpoint", runtime.rendezvous, "--rdzv-id",
        meeting, "--rdzv-conf",
        f"is_host=0,last_call_timeout={LAST_CALL_SECONDS},join_timeout={runtime.meet_seconds:.0f}",
        "--local-addr", own_address(runtime.rendezvous)]
    return [sys.executable, "-m", "torch.distributed.run", *where, "--nproc-per-node",
            str(runtime.processes // runtime.hosts), "--max-restarts", str(RESTARTS), "--log-dir",
            str(order.parent / "logs"), "--module", "tasks.placement.rank", str(order)]


def environment_of_ranks(runtime: Runtime, beside: int = 1) -> dict[str, str]:
    """What ranks need beside this process's environment; `beside`: stages that run at the same time."""
    here = max(1, runtime.processes // runtime.hosts)
    # a store of their own after each start: in that of torchrun PyTorch 2.13 finds addresses of ranks that are gone
    found = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
             "OMP_NUM_THREADS": str(max(1, usable_cores() // max(here, beside)))}
    if runtime.hosts > 1 and (interface := _interface(own_address(runtime.rendezvous))):
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


def host_and_port(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    if not host or not port.isdigit():
        raise InputError(f"{address}: not an address where hosts meet; write it as HOST:PORT, e.g. gpu-1:29400")
    return host.strip("[]"), int(port)


def own_address(address: str) -> str:
    """This host's address as seen from where the hosts meet. Raises InputError for a host that has none."""
    try:
        found = socket.getaddrinfo(*host_and_port(address), type=socket.SOCK_DGRAM)[0]
        with socket.socket(found[0], socket.SOCK_DGRAM) as probe:
            probe.connect(found[4])      # sends nothing
            return str(probe.getsockname()[0])
    except OSError as error:
        raise InputError(f"{address}: this host knows no way there ({error})") from None


def _interface(address: str) -> str:
    """Name of the network interface that has an address; empty where none has."""
    return next((name for name, given in psutil.net_if_addrs().items()
                 if any(each.address.partition("%")[0] == address for each in given)), "")


def last_lines(path: Path, count: int = 40) -> str:
    """The end of what processes wrote to their standard error."""
    return "\n".join(path.read_text(encoding="utf-8", errors="replace").splitlines()[-count:])


def let_go(process: "subprocess.Popen[str]") -> None:
    """Have the lifeline end a process: it cannot read on."""
    with suppress(OSError, AttributeError):
        process.stdin.close()      # type: ignore[union-attr]


def end(process: "subprocess.Popen[str]") -> None:
    """Let ranks that still run save a checkpoint; what is left of them after a grace is killed."""
    let_go(process)
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
