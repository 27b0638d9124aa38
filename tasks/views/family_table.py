"""The newest run of every family in one table: figures of its models and baselines, and what each model cost."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.catalog import FAMILIES, lasting_stages
from tasks.family import Family
from tasks.registry import versions
from tasks.store import records
from tasks.store.artifacts import MANIFEST, Damaged, read_manifest
from tasks.store.cost import Cost, recorded_cost
from tasks.store.workspace import Workspace


@dataclass(frozen=True)
class FamilyLine:
    """One row: a model, or a baseline that it is compared with."""

    column: str
    figures: dict[str, float]
    seconds: float = 0.0
    """Training time in seconds; 0 for a baseline."""
    version: str = ""


@dataclass(frozen=True)
class FamilyRow:
    """A family's newest evaluation."""

    name: str
    title: str
    made: str
    commit: str
    lines: list[FamilyLine]
    evaluation: Path
    """Directory of the evaluation, with its pictures."""
    cost: Cost
    """Cost of all its stages together."""
    gates: list[dict[str, Any]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"evaluation": str(self.evaluation)}


def family_table(workspace: Workspace) -> list[FamilyRow]:
    """The families that were run here, in the order of their definition."""
    rows = []
    for family in FAMILIES.values():
        found = _newest_evaluation(workspace, family)
        if found:
            rows.append(_row(workspace, family, *found))
    return rows


def _newest_evaluation(workspace: Workspace, family: Family) -> tuple[Path, dict[str, Any], dict[str, Any]] | None:
    """Directory, manifest and record of the evaluation that a run used last."""
    evaluation = family.stages[-1]
    found = []
    for path in (workspace.reports / "evaluate").glob(f"*/{MANIFEST}"):
        try:
            manifest = read_manifest(path.parent)
        except Damaged:
            continue
        if evaluation.core in manifest["code"] and tuple(manifest["inputs"]) == evaluation.input_stages:
            found.append((records.last_used(workspace, "evaluate", path.parent.name), path.parent, manifest))
    if not found:
        return None
    _, directory, manifest = max(found, key=lambda entry: entry[0])
    return directory, manifest, records.read_record(workspace, "evaluate", directory.name)


def _row(workspace: Workspace, family: Family, directory: Path, manifest: dict[str, Any], record: dict[str, Any]
         ) -> FamilyRow:
    columns = json.loads((directory / "evaluation.json").read_text(encoding="utf-8"))
    lines = []
    made = {name: _record_of(workspace, name, digest) for name, digest in manifest["inputs"].items()}
    cost = sum((recorded_cost(entry) for entry in _all_records(workspace, manifest["inputs"]).values()),
               recorded_cost(record))
    for column, figures in columns.items():
        chosen = {name: figures[name] for name in family.figures if name in figures}
        version = versions.version_of_digest(column, manifest["inputs"][column]) if column in made else None
        lines.append(FamilyLine(column, chosen or figures, made.get(column, {}).get("seconds", 0.0),
                                f"{version.name} v{version.version}" if version is not None else ""))
    gates = []
    for path in (workspace.reports / "promote").glob(f"*/{MANIFEST}"):
        if read_manifest(path.parent)["inputs"] == {"evaluate": manifest["digest"]}:
            gates = json.loads((path.parent / "gates.json").read_text(encoding="utf-8"))
    return FamilyRow(family.name, family.title, record.get("started", ""), record.get("commit", ""), lines, directory,
                     cost, gates)


def _all_records(workspace: Workspace, inputs: dict[str, str]) -> dict[tuple[str, str], dict[str, Any]]:
    """The records of the inputs and of everything that they were made from, each artifact once."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    waiting = list(inputs.items())
    while waiting:
        stage, digest = waiting.pop()
        if (stage, digest) in found or stage not in lasting_stages():
            continue
        record = found[stage, digest] = _record_of(workspace, stage, digest)
        if record:
            directory = workspace.root / lasting_stages()[stage].folder / stage / record["key"]
            if (directory / MANIFEST).is_file():
                waiting.extend(read_manifest(directory)["inputs"].items())
    return found


def _record_of(workspace: Workspace, stage: str, digest: str) -> dict[str, Any]:
    """The record of an artifact with its key; empty where there is none."""
    folder = workspace.hidden / "records" / stage
    for path in folder.glob("*.json") if folder.is_dir() else ():
        record = records.read_record(workspace, stage, path.stem)
        if record.get("digest") == digest:
            return record | {"key": path.stem}
    return {}
