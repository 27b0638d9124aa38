"""Whether a service answers, and on which port one may listen."""

import socket
import time
import urllib.error
import urllib.request

from genai_core.errors import InputError


def answers(address: str) -> bool:
    """Whether an HTTP GET of `address` is answered with 200 within three seconds."""
    try:
        with urllib.request.urlopen(address, timeout=3) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError, ValueError):
        return False


def wait_for(address: str, seconds: float) -> None:
    """Wait until `address` answers. Raises InputError when it does not within `seconds`."""
    deadline = time.monotonic() + seconds
    while not answers(address):
        if time.monotonic() > deadline:
            raise InputError(f"nothing answers at {address}")
        time.sleep(0.1)


def free_port() -> int:
    """A loopback port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def bound_socket() -> socket.socket:
    """A socket on a loopback port that nobody else can take until the process that it is handed to listens on it."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)      # what it accepts inherits it
    return listener
