"""Listening: a port that is free or a line that says it is not, and a uvicorn that ends in peace."""

import contextlib
import errno
import socket
from collections.abc import Iterator
from typing import Any

import uvicorn

from genai_core.errors import InputError

LOOPBACK = ("127.0.0.1", "localhost", "::1")


def bound_socket(host: str, port: int) -> socket.socket:
    """A socket that listens, so that nobody else can take its port. Raises InputError where somebody has, or where
    there is no such host."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM,
                                                                flags=socket.AI_PASSIVE)[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)      # what it accepts inherits it
        listener.bind(address)
        listener.listen(512)      # two may be bound where none listens yet
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise InputError(f"port {port} is taken; choose another with --port") from None
        if error.errno == errno.EACCES:
            raise InputError(f"port {port} needs more rights; choose another with --port") from None
        raise InputError(f"--host {host}: cannot listen there ({error.strerror or error})") from None
    return listener


class _Server(uvicorn.Server):
    """Ends at SIGINT and SIGTERM as if asked to, where uvicorn would send itself the signal again."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        with super().capture_signals():
            yield
            self._captured_signals.clear()


def quiet_server(app: Any, grace_seconds: int | None = None) -> _Server:
    """A server of one process that logs errors alone; requests under way have `grace_seconds` when it ends."""
    return _Server(uvicorn.Config(app, log_level="error", access_log=False, server_header=False, lifespan="off",
                                  timeout_graceful_shutdown=grace_seconds, ws="none", backlog=512,
                                  h11_max_incomplete_event_size=64 * 1024, timeout_keep_alive=30))
