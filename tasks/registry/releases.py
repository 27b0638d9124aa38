"""Which version is in service: `champion` moves forward through gates and back by hand, and each move is kept.

A version is in service from the one call that sets `champion` on. Moves of a registered model are made under a lock,
and recorded on it as tags `promotion.<time>`.
"""

import getpass
import json
import socket
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import Any

from genai_core.errors import GateFailed, InputError
from tasks.pipeline import PipelineRun
from tasks.registry.versions import ALIASES, key_figures, model_name, read_version, registered_model, set_alias, tag
from tasks.store.artifacts import Store, read_manifest
from tasks.store.workspace import Workspace
from tasks.tracking import client as tracking

PREFIX = "promotion."


@dataclass(frozen=True)
class Move:
    """One move of an alias."""

    when: str
    who: str
    stage: str
    alias: str
    before: str
    """Version that had the alias; empty if none had."""
    after: str
    reason: str
    figures: dict[str, float]


def conclude(run: PipelineRun) -> None:
    """Do what the judged gates of a run say: move `champion` to its versions, or tag them as failed.

    Raises GateFailed with the gate, the figure and the bound.
    """
    verdicts = run.artifacts["promote"].directory(run.workspace) / "gates.json"
    failed = [verdict for verdict in json.loads(verdicts.read_text(encoding="utf-8")) if not verdict["passed"]]
    if failed:
        reason = "; ".join(f"gate {verdict['gate']}: {verdict['figure']} is {verdict['value']:.4f}, wanted "
                           f"{verdict['comparison']} {verdict['bound']:.4f}" for verdict in failed)
        for stage, version in run.versions.items():
            tag(stage, version, {"gates": "failed", "gates.reason": reason})
        raise GateFailed(reason)
    for stage, version in run.versions.items():
        tag(stage, version, {"gates": "passed"})
        _move(stage, "champion", version, "every gate passed")


def promote(uri: str, alias: str = "champion", override: str = "") -> Move | None:
    """Move an alias to one version by hand; None when it has it already.

    Raises InputError when the version did not pass its gates and `override` gives no reason.
    """
    if alias not in ALIASES:
        raise InputError(f"--to {alias}: the aliases are {', '.join(ALIASES)}")
    version = read_version(uri)
    gates = version.tags.get("gates", "")
    if alias == "champion" and gates != "passed" and not override.strip():
        why = version.tags.get("gates.reason") or "it was never held against the gates: no run went on to promote it"
        raise InputError(f"{uri}: {why}; to promote it all the same, give --override and the reason")
    reason = f"override: {override.strip()}" if override.strip() else "by hand"
    return _move(version.tags["stage"], alias, str(version.version), reason)


def rollback(stage: str) -> Move:
    """Give `champion` back to `previous`, and `previous` to the version it leaves. Raises InputError without one."""
    model = registered_model(stage)
    aliases = model.aliases if model else {}
    if "previous" not in aliases:
        raise InputError(f"{stage}: no version served before the champion, so there is nothing to go back to")
    move = _move(stage, "champion", str(aliases["previous"]), "rollback")
    if move is None:
        raise InputError(f"{stage}: champion and previous are the same version {aliases['previous']}")
    return move


def history(stage: str) -> list[Move]:
    """All recorded moves of a stage's aliases, oldest first."""
    model = registered_model(stage)
    tags = model.tags if model else {}
    known = {field.name for field in fields(Move)}
    moves = [json.loads(value) for name, value in sorted(tags.items()) if name.startswith(PREFIX)]
    return [Move(**{name: value for name, value in move.items() if name in known}) for move in moves]


def _move(stage: str, alias: str, version: str, reason: str) -> Move | None:
    client, name = tracking.client(), model_name(stage)
    workspace = Workspace.current()
    with Store.of(workspace).lock("registry", stage):
        before = str(client.get_registered_model(name).aliases.get(alias, ""))
        if before == version:
            return None
        # the record first: a move that was cut short is then known, and doing it again completes it
        move = Move(datetime.now(UTC).isoformat(timespec="milliseconds"), f"{_user()}@{socket.gethostname()}", stage,
                    alias, before, version, reason, _figures(workspace, stage, version))
        client.set_registered_model_tag(name, f"{PREFIX}{move.when.replace(':', '.').replace('+', ' ')}",
                                        json.dumps(asdict(move)))
        if alias == "champion" and before:
            set_alias(stage, "previous", before)
        set_alias(stage, alias, version)
        if reason.startswith("override"):
            tag(stage, version, {"override": reason.removeprefix("override: ")})
        return move


def _figures(workspace: Workspace, stage: str, version: str) -> dict[str, float]:
    tags: dict[str, Any] = tracking.client().get_model_version(model_name(stage), version).tags
    directory = workspace.root / tags.get("path", "")
    return key_figures(stage, read_manifest(directory)["metrics"]) if (directory / "manifest.json").is_file() else {}


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):      # a container without an entry for the user's number
        return "unknown"
