"""A process of our own that serves this one. Its settings go to it as one line of JSON on standard input, since an
argument could be read by every user of the machine; it answers with one on standard output, its address or why there is
none. When standard input closes, because `end` closed it or this process died by any signal, it ends."""

import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

END_SECONDS = 10.0
_ROOT = Path(__file__).parents[2]


def start(module: str, settings: dict[str, Any], log: Path, seconds: float
          ) -> tuple["subprocess.Popen[bytes]", dict[str, Any]]:
    """Start `python -m module` and wait for its answer, as `launch` and `tell` do."""
    process = launch(module, log)
    return process, tell(process, settings, seconds)


def launch(module: str, log: Path) -> "subprocess.Popen[bytes]":
    """Start `python -m module`. What it prints to standard error goes to a new file `log`, which its owner alone can
    read."""
    # modules are found as here, wherever this process was started
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    environment.pop("GENAI_API_KEY", None)
    log.parent.mkdir(parents=True, exist_ok=True)
    log.unlink(missing_ok=True)      # a process that is about to end may still write to the one before
    with os.fdopen(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        return subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                stderr=file, env=environment, start_new_session=True)


def tell(process: "subprocess.Popen[bytes]", settings: dict[str, Any], seconds: float) -> dict[str, Any]:
    """Tell a process its settings and wait for its answer, which is empty when it ended, or was ended by another
    thread, or `seconds` were over before it gave one."""
    assert process.stdin and process.stdout
    too_late = threading.Timer(seconds, process.kill)
    too_late.start()
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except (OSError, ValueError):      # a ValueError where it was ended before it was told
        line = b""
    except BaseException:      # Ctrl-C while it starts
        end(process)
        raise
    finally:
        too_late.cancel()
    return json.loads(line) if line.endswith(b"\n") else {}


def end(process: "subprocess.Popen[bytes]", seconds: float = END_SECONDS) -> None:
    """End a process: by itself, or after some seconds by force."""
    assert process.stdin and process.stdout
    with suppress(OSError):      # what it was to be told has no reader
        process.stdin.close()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
