"""Runs a command that must not outlive its parent: `python -m tasks.placement.lifeline COMMAND …`.

The parent holds the other end of standard input. When it closes, because the parent closed it or died by any signal,
the command's whole process group gets SIGTERM and, after a grace, SIGKILL.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress

GRACE_SECONDS = 25.0      # training needs some of it to save a checkpoint
POLL_SECONDS = 0.1


def main(command: list[str]) -> int:
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    threading.Thread(target=_watch_parent, args=(stop,), daemon=True).start()
    # open files too: the parent may have bound the socket that the command is to listen on. Copies of it stay open here
    # and there, so that whoever connects while the server shuts down waits for its end, and is then refused
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, close_fds=False,
                               env={**os.environ, "LIFELINE": str(os.getpid())})
    while process.poll() is None and not stop.is_set():
        time.sleep(POLL_SECONDS)
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGTERM)
        deadline = time.monotonic() + GRACE_SECONDS
        while process.poll() is None and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)       # whatever of the group is left
    return process.wait()


def _watch_parent(stop: threading.Event) -> None:
    while os.read(0, 4096):       # a buffered read in a daemon thread would abort the interpreter at its exit
        pass
    stop.set()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
