"""What one request, and all of them together, may take. It imports nothing, so that a command can show the defaults."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """The limits of a server."""

    slots: int = 8
    """Requests that an engine answers at a time."""
    queue: int = 64
    """Requests that may wait for a slot, or for their engine to start."""
    threads: int | None = None
    """Of an engine; None for all cores but one."""
    context: int | None = None
    """Longest conversation in tokens; None for the model's own."""
    tokens: int | None = None
    """Longest answer in tokens; None for what the context leaves."""
    body: int = 512 * 1024
    """Bytes of a request."""
    upload_seconds: float = 20.0
    """In which a request's body has to arrive."""
    seconds: float = 300.0
    """In which an answer has to be taken, the start of its engine and the wait for a slot included."""
    grace_seconds: int = 30
    """That requests under way have when the server ends."""
