"""The process that starts vLLM and ends it: `python -m genai_core.inference.vllm.process`.

One line of JSON on standard input says the command and variables of its environment, the answer on standard output is
the address or that there is none. When standard input closes, because its parent closed it or died by any signal, vLLM
ends with all that it started: a group of processes of its own. Where this process dies by SIGKILL itself, the kernel
tells vLLM (Linux).

The address is a socket in a folder that nobody else may enter: of vLLM's paths only those under /v1 ask for the key,
and others on the machine could tell it on a port to load their weights.
"""

import ctypes
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

QUIET = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1"}
"""Nothing is told or fetched: what is served is a directory."""
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "GENAI_API_KEY")
"""Variables of this process that vLLM must not see."""
END_SECONDS = 3.0
"""In which vLLM may end by itself; whoever started this process waits ten."""
PAUSE_SECONDS = 0.1
_DIE_WITH_PARENT = 1      # PR_SET_PDEATHSIG


def main() -> None:
    given: dict[str, Any] = json.loads(sys.stdin.buffer.readline())
    run(given["command"], given["environment"], given["scratch"])


def run(command: Sequence[str], variables: dict[str, str], scratch: str | None) -> None:
    """Start vLLM with `variables` in its environment, say its address, and end it when standard input closes or it has
    ended; then remove the folder `scratch`, if there is one, so that it is gone however the parent ended."""
    environment = {name: value for name, value in os.environ.items() if name not in OURS} | QUIET | variables
    out = os.dup(1)
    os.dup2(2, 1)      # whatever else is printed goes to the log
    folder = tempfile.mkdtemp(prefix="genai-vllm-")
    address = f"{folder}/socket"
    try:
        process = subprocess.Popen([*command, "--uds", address], stdin=subprocess.DEVNULL, env=environment,
                                   start_new_session=True, preexec_fn=_die_with_parent())
        try:
            if _wait_until(process, lambda: _answers(address)):
                os.write(out, json.dumps({"address": f"unix:{address}"}).encode() + b"\n")
                _wait_until(process, lambda: False)
        finally:
            _end(process)
    except OSError as error:
        os.write(out, json.dumps({"error": f"cannot be started ({error})"}).encode() + b"\n")
    finally:
        os.close(out)
        for path in (folder, scratch):
            if path:
                shutil.rmtree(path, ignore_errors=True)


def _wait_until(process: "subprocess.Popen[bytes]", true: Callable[[], bool]) -> bool:
    """Wait until something is true, and say so; or until standard input has closed or vLLM has ended."""
    while process.poll() is None:
        if select.select([0], [], [], PAUSE_SECONDS)[0] and not os.read(0, 4096):
            return False
        if true():
            return True
    return False


def _answers(address: str) -> bool:
    with suppress(OSError), socket.socket(socket.AF_UNIX) as client:
        client.settimeout(5)
        client.connect(address)
        client.sendall(b"GET /health HTTP/1.0\r\nHost: vllm\r\n\r\n")
        return b" 200 " in client.recv(64)
    return False


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End vLLM, which leads a group of processes, and all of that group."""
    _signal_group(process.pid, signal.SIGTERM)
    with suppress(subprocess.TimeoutExpired):
        process.wait(END_SECONDS)
    deadline = time.monotonic() + 1
    while _signal_group(process.pid, signal.SIGKILL) and time.monotonic() < deadline:
        process.poll()
        time.sleep(0.02)


def _signal_group(group: int, number: int) -> bool:
    """Whether there was a group to send a signal to."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:      # of a Mac, for what has ended and nobody has waited for
        return False
    return True


def _die_with_parent() -> Callable[[], None] | None:
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl      # not after the fork
    return lambda: prctl(_DIE_WITH_PARENT, signal.SIGTERM)


if __name__ == "__main__":
    main()
