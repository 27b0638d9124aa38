"""What a run tells whoever watches it: stages that start and finish, progress, notes."""

from collections.abc import Callable
from typing import Any

Listener = Callable[..., None]
_listeners: list[Listener] = []


def listen(listener: Listener) -> Callable[[], None]:
    """Call `listener(event, stage, **details)` for every event; the returned function stops it."""
    _listeners.append(listener)
    return lambda: _listeners.remove(listener)


def announce(event: str, stage: str, **details: Any) -> None:
    for listener in list(_listeners):
        listener(event, stage, **details)
