"""A process of our own that serves this one. Its settings go to it as one line of JSON on standard input, since an
argument could be read by every user of the machine; it answers with one on standard output, its address or why there is
none. When standard input closes, because `end` closed it or this process died by any signal, it ends."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

END_SECONDS = 10
_ROOT = Path(__file__).parents[2]


def start(module: str, settings: dict[str, Any], log: Path, seconds: float, append: bool = False
          ) -> tuple["subprocess.Popen[bytes]", dict[str, Any]]:
    """Start `python -m module` and wait for its answer, which is empty when it ended or `seconds` were over before it
    gave one. What it prints to standard error goes to `log`, which its owner alone can read."""
    # modules are found as here, wherever this process was started
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)])}
    environment.pop("GENAI_API_KEY", None)
    how = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if append else os.O_TRUNC)
    with os.fdopen(os.open(log, how, 0o600), "wb") as file:
        process = subprocess.Popen([sys.executable, "-m", module], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                   stderr=file, env=environment, start_new_session=True)
    assert process.stdin and process.stdout
    too_late = threading.Timer(seconds, process.kill)
    too_late.start()
    try:
        process.stdin.write(json.dumps(settings).encode() + b"\n")
        process.stdin.flush()
        line = process.stdout.readline()
    except OSError:
        line = b""
    except BaseException:      # Ctrl-C while it starts
        end(process)
        raise
    finally:
        too_late.cancel()
    return process, json.loads(line) if line.endswith(b"\n") else {}


def end(process: "subprocess.Popen[bytes]") -> None:
    """End it: by itself, or after ten seconds by force."""
    assert process.stdin and process.stdout
    process.stdin.close()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()
