"""The recorded moves of the alias `champion`: tags of the registered model, numbered since clocks may differ."""

import getpass
import json
import logging
import socket
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime

from tasks.catalog import model_stages
from tasks.registry.versions import model_name, registered_model
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")

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
    numbers = [int(tag.removeprefix(PREFIX)) for tag in registered_model(stage).tags if tag.startswith(PREFIX)]
    tracking.client().set_registered_model_tag(model_name(stage), f"{PREFIX}{max(numbers, default=0) + 1:06d}",
                                               json.dumps(asdict(move)))
    return move


def recorded_moves(stage: str) -> list[Move]:
    """Every recorded move, oldest first, also one that a crash prevented. One that cannot be read is passed over."""
    model = registered_model(stage)
    known = {field.name for field in fields(Move)}
    moves = []
    for tag, value in sorted(model.tags.items()) if model else ():
        if tag.startswith(PREFIX):
            try:
                moves.append(Move(**{name: value for name, value in json.loads(value).items() if name in known}))
            except (ValueError, TypeError, AttributeError) as error:
                logger.warning("%s: its tag %s cannot be read and is passed over: %s", model_name(stage), tag, error)
    return moves


def history(stage: str) -> list[Move]:
    """The recorded moves of a registered model's champion, oldest first; of releases, those that came to pass."""
    recorded = recorded_moves(stage)
    if stage in model_stages():
        return recorded
    happened: list[Move] = []
    at = last_champion(stage)
    for move in reversed(recorded):      # the record is written before the move, which a crash may have prevented
        if move.after == at:
            happened.append(move)
            at = move.before
    return happened[::-1]


def last_champion(stage: str) -> str:
    """The version with the alias `champion`, or the one that had it last where somebody took it away; empty where none
    ever had it."""
    model, recorded = registered_model(stage), recorded_moves(stage)
    if model and (number := str(model.aliases.get("champion", ""))):
        return number
    there = {str(entry.version) for entry in tracking.client().search_model_versions(f"name='{model_name(stage)}'")}
    # a first move that a crash prevented left its record and its version
    came_to_pass = recorded and (recorded[-1].before or recorded[-1].after not in there)
    return recorded[-1].after if came_to_pass else ""


def before_the_last(stage: str) -> list[str]:
    """The versions that served before the one that serves now, the latest last: a rollback forgets what it went back
    over."""
    served: list[str] = []
    for move in history(stage):
        if move.reason == ROLLBACK and move.after in served:
            del served[served.index(move.after):]
        served.append(move.after)
    return served[:-1]


def withdrawn(stage: str, versions: set[str]) -> Move | None:
    """The rollback that took the last of these versions, which hold the same models, out of service; None while one of
    them serves, and where one was left for a newer release."""
    moves = [move for move in history(stage) if move.before in versions or move.after in versions]
    last = moves[-1] if moves else None
    went_back = last and last.reason == ROLLBACK and last.after not in versions and int(last.after) < int(last.before)
    return last if went_back else None


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):      # a container without an entry for the user's number
        return "unknown"
