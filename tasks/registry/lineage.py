"""Where a model comes from: every artifact of its chain, back to the sources, each with what made it."""

import json
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tasks.catalog import lasting_stages
from tasks.registry import versions
from tasks.registry.files import manifest_of
from tasks.store import published, records
from tasks.store.artifacts import MANIFEST, Damaged, read_manifest
from tasks.store.cost import Cost, recorded_cost
from tasks.store.remote import RemoteRefuses
from tasks.store.workspace import Workspace

logger = logging.getLogger("tasks")

CARD = "data_card.json"
"""What a collected dataset says of its sources."""


@dataclass
class Node:
    """One artifact of the chain."""

    stage: str
    digest: str
    key: str = ""
    """Key of the artifact; empty where it is neither here nor in the registry."""
    version: str = ""
    """`NAME/VERSION` of the registered model; empty for datasets."""
    aliases: list[str] = field(default_factory=list)
    made: str = ""
    host: str = ""
    commit: str = ""
    command: str = ""
    mlflow_run_id: str = ""
    flow_run_id: str = ""
    dvc_md5: str = ""
    environment: dict[str, str] = field(default_factory=dict)
    """Versions of Python and of the libraries that made it."""
    figures: dict[str, float] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    sources: list[dict[str, str]] = field(default_factory=list)
    """Name, licence and origin of each source, for a collected dataset."""
    inputs: list["Node"] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def all_nodes(self) -> list["Node"]:
        """Every artifact once, inputs before what was made from them."""
        seen: dict[tuple[str, str], Node] = {}

        def visit(node: Node) -> None:
            for parent in node.inputs:
                visit(parent)
            seen.setdefault((node.stage, node.digest), node)

        visit(self)
        return list(seen.values())


def lineage(uri: str) -> Node:
    """The chain of a registered model. Raises InputError when the registry does not have it."""
    version = versions.read_version(uri)
    return _node(version.tags["stage"], version.tags["artifact.digest"], Workspace.current(), {})


def _node(stage: str, digest: str, workspace: Workspace, known: dict[tuple[str, str], Node]) -> Node:
    if (stage, digest) in known:
        return known[stage, digest]
    node = known[stage, digest] = Node(stage, digest)
    version = versions.version_of_digest(stage, digest)
    tags = version.tags if version is not None else {}
    if version is not None:
        node.version = f"{version.name}/{version.version}"
        node.aliases = versions.aliases_of(version)
    directory = directory_of_digest(stage, digest, workspace)
    entry = _entry(workspace, stage, digest) if directory is None and version is None else None
    if directory:
        manifest = read_manifest(directory)
        record = records.read_record(workspace, stage, manifest["key"])
    elif entry:
        manifest, record = entry.manifest, entry.record
    else:
        fetched = manifest_of(workspace, version) if version is not None else None
        if fetched is None:
            return node
        manifest, record = fetched, json.loads(tags.get("record", "{}"))
    node.key = manifest["key"]
    node.made, node.host = record.get("started", ""), record.get("host", "")
    node.commit = record.get("commit") or tags.get("git.commit", "")
    node.command = record.get("command") or tags.get("command", "")
    node.mlflow_run_id = record.get("mlflow_run_id") or (version.run_id if version is not None else "")
    node.flow_run_id = record.get("flow_run_id") or tags.get("prefect.flow_run_id", "")
    node.dvc_md5 = tags.get("dvc.md5", "")
    node.environment = record.get("environment") or json.loads(tags.get("environment", "{}"))
    node.cost = recorded_cost(record)
    node.figures = versions.key_figures(stage, manifest["metrics"]) or dict(list(manifest["metrics"].items())[:3])
    if directory and (directory / CARD).is_file():
        node.sources = _sources((directory / CARD).read_bytes())
    elif entry and CARD in manifest["files"]:
        node.sources = _sources(published.read_file(workspace, entry, CARD) or b"{}")
    node.inputs = [_node(name, its_digest, workspace, known) for name, its_digest in manifest["inputs"].items()
                   if name in lasting_stages()]
    return node


def directory_of_digest(stage: str, digest: str, workspace: Workspace) -> Path | None:
    """Where the artifact lies here; None where it does not."""
    folder = workspace.root / lasting_stages()[stage].folder / stage
    for manifest in folder.glob(f"*/{MANIFEST}"):
        try:
            if read_manifest(manifest.parent)["digest"] == digest:
                return manifest.parent
        except Damaged:
            continue
    return None


def _entry(workspace: Workspace, stage: str, digest: str) -> published.Entry | None:
    try:
        return published.find_digest(workspace, stage, digest, tries=2)
    except RemoteRefuses as refusal:
        logger.warning("where %s %s comes from cannot be told: %s", stage, digest[:12], refusal)
        return None


def _sources(card: bytes) -> list[dict[str, str]]:
    return [{"name": name, "licence": entry.get("licence", ""), "from": entry.get("attribution", "")}
            for name, entry in json.loads(card).items()]
