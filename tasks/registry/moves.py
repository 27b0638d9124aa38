"""The recorded moves of the alias `champion`: tags of the registered model, numbered since clocks may differ."""

import getpass
import json
import socket
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from tasks.catalog import model_stages
from tasks.registry.versions import model_name, registered_model
from tasks.tracking import client as tracking

PREFIX = "promotion."
ROLLBACK = "rollback"
"""The reason of a move that went back."""


@dataclass(frozen=True)
class Move:
    """One move of the alias `champion`: of a release, or, before there were releases, of a single stage's model."""

    when: str
    who: str
    stage: str
    alias: str
    before: str
    """Version that had the alias; empty if none had."""
    after: str
    reason: str
    figures: dict[str, float]
    name: str = ""
    """Name of the release that it moved to."""


def record_move(stage: str, before: str, after: str, reason: str, name: str, figures: dict[str, float]) -> Move:
    """Record a move that is about to be made: one that was cut short is then known, or passed over."""
    move = Move(datetime.now(UTC).isoformat(timespec="milliseconds"), f"{_user()}@{socket.gethostname()}", stage,
                "champion", before, after, reason, figures, name)
    recorded = sum(name.startswith(PREFIX) for name in registered_model(stage).tags)
    tracking.client().set_registered_model_tag(model_name(stage), f"{PREFIX}{recorded + 1:06d}",
                                               json.dumps(asdict(move)))
    return move


def withdrawn(stage: str, version: str) -> Move | None:
    """The rollback that took a version out of service, unless it has been put back since."""
    moves = [move for move in history(stage) if version in (move.before, move.after)]
    last = moves[-1] if moves else None
    return last if last and last.before == version and last.reason == ROLLBACK else None


def recorded_moves(stage: str) -> list[Move]:
    """Every recorded move, oldest first, also one that a crash prevented."""
    model = registered_model(stage)
    tags = model.tags if model else {}
    known = {field.name for field in fields(Move)}
    moves = [json.loads(value) for name, value in sorted(tags.items()) if name.startswith(PREFIX)]
    return [Move(**{name: value for name, value in move.items() if name in known}) for move in moves]


def history(stage: str) -> list[Move]:
    """The recorded moves of a registered model's champion, oldest first; of releases, those that came to pass."""
    model, recorded = registered_model(stage), recorded_moves(stage)
    if stage in model_stages():
        return recorded
    happened: list[Move] = []
    at = str(model.aliases.get("champion", "")) if model else ""
    for move in reversed(recorded):      # the record is written before the move, which a crash may have prevented
        if move.after == at:
            happened.append(move)
            at = move.before
    return happened[::-1]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):      # a container without an entry for the user's number
        return "unknown"
