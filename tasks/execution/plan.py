"""What a run would do: for every stage hit or miss and why, and what it would take."""

import json
import logging
from collections.abc import Sequence
from dataclasses import KW_ONLY, asdict, dataclass
from pathlib import Path
from typing import Any

from genai_core.bases.places import local_path
from genai_core.bases.weights import shape_of
from genai_core.config.pipeline import STAGE_NAMES, PipelineConfig
from genai_core.data.shards.scaling import estimate as data_estimate
from genai_core.families.config import FamilyConfig
from genai_core.mapping import usable_cores
from genai_core.models.transformer import TransformerConfig
from genai_core.stages.collect import file_bytes
from tasks.catalog import stages_for
from tasks.registry import versions
from tasks.registry.opponent import all_here, opponent, opposing_models
from tasks.stage import Stage
from tasks.store import published, records
from tasks.store.artifacts import MANIFEST, Artifact, Damaged, KeyParts, Store, read_manifest
from tasks.store.key import key_parts
from tasks.store.remote import RemoteRefuses
from tasks.store.workspace import Workspace
from tasks.tables import flatten
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")

DATA_STAGES = ("collect", "clean", "tokenize")
ASSUMED_UTILISATION = 0.3
"""Share of the matrix-product speed that training reaches, where no earlier run of the stage tells."""


ALIKE = 5
"""Largest ratio of the work of two runs of which one tells how fast the other will be."""


@dataclass(frozen=True)
class PlannedStage:
    """One line of the plan."""

    stage: str
    state: str
    """`hit`, `fetch` where the registry or the remote has it, `miss`, `unknown` where it depends on what an earlier
    miss will make, or `left out` of a run whose data does not allow it."""
    why: str
    key: str = ""
    _: KW_ONLY
    again: str = ""
    """What a miss does not do a second time, or does, where some of its data is as it was."""
    digest: str = ""
    """Of its bytes, where there are such."""
    parameters: int | None = None
    trainable_parameters: int | None = None
    tokens: int | None = None
    flops: float | None = None
    memory_bytes: int | None = None
    seconds: float | None = None
    """Estimated, for what is not a hit; None where nothing tells."""


def plan(config: PipelineConfig | FamilyConfig, workspace: Workspace, force: frozenset[str] = frozenset(),
         stages: Sequence[Stage] | None = None) -> list[PlannedStage]:
    """The plan of a run, or of some stages of it, with the stages that its data does not allow at the end. Nothing is
    executed, fetched or taken away."""
    store, elsewhere = Store.of(workspace), _Elsewhere(workspace)
    known: dict[str, Artifact] = {}
    kinds: dict[str, set[str]] = {}      # by digest, of models that are not here
    lines = []
    for stage in stages if stages is not None else stages_for(config):
        missing = [name for name in stage.input_stages if name not in known]
        if missing:
            lines.append(_costed(PlannedStage(stage.name, "unknown", f"depends on what {missing[0]} makes"), config,
                                 workspace, known))
            continue
        family = config.family if isinstance(config, FamilyConfig) else ""
        release = opponent(family, known) if stage.in_service else None
        if release and not all_here(release, stage, workspace):
            lines.append(PlannedStage(stage.name, "unknown", f"release {release.name} in service is fetched first"))
            continue
        against = opposing_models(release, stage, workspace) if release else {}
        parts = key_parts(stage, config, known, workspace, against, kinds)
        directory = store.directory(stage.name, stage.kind, parts.key)
        if stage.name in force:
            lines.append(_costed(PlannedStage(stage.name, "miss", "forced", parts.key), config, workspace, known))
        elif found := store.find(directory):
            known[stage.name] = found
            lines.append(PlannedStage(stage.name, "hit", _why_hit(workspace, found), parts.key,
                                      digest=found.digest))
        elif there := elsewhere.find(stage, parts.key):
            where, digest, kinds[there[1]] = there
            known[stage.name] = Artifact(stage=stage.name, key=parts.key, digest=digest,
                                         path=directory.relative_to(workspace.root).as_posix())
            lines.append(PlannedStage(stage.name, "fetch", f"{where} has it", parts.key, digest=digest))
        else:
            why = explain_miss(stage, parts, directory.parent)
            again = stage.again if store.made_by(stage.name, stage.kind, parts.code) else ""
            lines.append(_costed(PlannedStage(stage.name, "miss", why, parts.key, again=again), config, workspace,
                                 known))
    return lines + (_left_out(config) if stages is None else [])


def _left_out(config: PipelineConfig | FamilyConfig) -> list[PlannedStage]:
    """The stages that a run does not have, and why."""
    if isinstance(config, FamilyConfig):
        return []
    return [PlannedStage(name, "left out", config.why_not(name) or "not among `stages` and not needed by them")
            for name in STAGE_NAMES if name not in config.stage_names and (name != "adopt" or config.base.given)]


class _Elsewhere:
    """What other hosts have made: looked up by key, without fetching it. A remote that fails is asked no more."""

    def __init__(self, workspace: Workspace):
        self._workspace = workspace
        self._answers = True

    def find(self, stage: Stage, key: str) -> tuple[str, str, set[str]] | None:
        """Who has it, its digest, and the kinds of the models in it."""
        if stage.kind == "model":
            version = versions.find_version(stage.name, key) if tracking.is_there() else None
            if version is None or "kinds" not in version.tags:
                return None
            return "the registry", version.tags["artifact.digest"], set(json.loads(version.tags["kinds"]))
        if not self._answers:
            return None
        try:
            entry = published.find(self._workspace, stage.name, key, tries=2)
        except RemoteRefuses as refusal:
            logger.warning("what the remote has is not known: %s", refusal)
            self._answers = False
            return None
        return ("the remote", entry.digest, set()) if entry else None


def explain_miss(stage: Stage, parts: KeyParts, folder: Path) -> str:
    """Which part of the key differs from the artifact of this stage that is nearest to it."""
    differences: list[list[str]] = []
    others = 0
    for directory in folder.iterdir() if folder.is_dir() else []:
        try:
            manifest = read_manifest(directory)
        except Damaged:
            continue
        if stage.core not in manifest["code"]:      # of another family, whose stage has the same name, or of before
            others += 1
            continue
        differences.append(_differences(parts, manifest))
    if not differences:
        return "never made here by this code, which has moved or is another family's" if others else "never made here"
    return "; ".join(sorted(differences, key=len)[0]) or "its files are gone"


def _why_hit(workspace: Workspace, artifact: Artifact) -> str:
    other = records.environment_difference(records.read_record(workspace, artifact.stage, artifact.key))
    return "made before from the same inputs" + (f", with other versions: {other}" if other else "")


def _differences(parts: KeyParts, manifest: dict[str, Any]) -> list[str]:
    """Which fields, inputs and functions differ, old → new, in this order."""
    found = _changes(flatten(manifest["config"]), flatten(parts.config), "{}")
    found += _changes({name: digest[:12] for name, digest in manifest["inputs"].items()},
                      {name: digest[:12] for name, digest in parts.inputs.items()}, "input {}")
    return found + _changes(_functions(manifest["code"]), _functions(parts.code), "code of {}")


def _changes(before: dict[str, Any], now: dict[str, Any], named: str) -> list[str]:
    return [f"{named.format(name)}: {before.get(name, 'not there')} → {now.get(name, 'not there')}"
            for name in sorted(now.keys() | before.keys()) if now.get(name) != before.get(name)]


def _functions(code: dict[str, Any]) -> dict[str, str]:
    """Digests by `module.function`; manifests of before knew whole modules."""
    functions: dict[str, str] = {}
    for module, digests in code.items():
        whole = {"": digests} if isinstance(digests, str) else digests
        functions |= {f"{module}.{name}".rstrip("."): digest[:8] for name, digest in whole.items()}
    return functions


def _costed(line: PlannedStage, config: PipelineConfig | FamilyConfig, workspace: Workspace, known: dict[str, Artifact]
            ) -> PlannedStage:
    from genai_core.training.estimate import estimate

    counts: dict[str, float] = {}
    if "clean" in known and (known["clean"].directory(workspace) / MANIFEST).is_file():
        counts = read_manifest(known["clean"].directory(workspace))["metrics"]
    cost = estimate(line.stage, config, counts, _base(config, workspace, known)) \
        if isinstance(config, PipelineConfig) else None
    if isinstance(config, PipelineConfig) and line.stage in DATA_STAGES \
            and (size := _text_bytes(config, workspace, known)):
        data = data_estimate(size, cores=config.runtime.workers or usable_cores(), sources=len(config.collect.sources))
        return PlannedStage(**{**asdict(line), "seconds": 3600 * data.hours_of[line.stage],
                               "memory_bytes": int(data.memory)})
    if cost is None:
        earlier = _records(workspace, line.stage)
        return PlannedStage(**{**asdict(line), "seconds": earlier[-1].get("seconds") if earlier else None})
    flops = _speed(workspace, line.stage, cost.flops) or _machine_flops() * ASSUMED_UTILISATION
    return PlannedStage(**{**asdict(line), **asdict(cost), "seconds": cost.flops / flops})


def _base(config: PipelineConfig, workspace: Workspace, known: dict[str, Artifact]) -> TransformerConfig | None:
    """The sizes of a base from outside, as it was taken in or as its own directory has them."""
    if not config.base.given:
        return None
    path = known["adopt"].directory(workspace) if "adopt" in known else local_path(config.base, workspace.root)
    return shape_of(path) if path else None


def _text_bytes(config: PipelineConfig, workspace: Workspace, known: dict[str, Artifact]) -> int:
    """How much text the data stages read: what was collected, else the files that sources name; 0 where neither tells.
    """
    if "collect" in known and (known["collect"].directory(workspace) / MANIFEST).is_file():
        return int(read_manifest(known["collect"].directory(workspace))["metrics"].get("characters", 0))
    return file_bytes(config.collect, workspace.root)


def _records(workspace: Workspace, stage: str) -> list[dict[str, Any]]:
    """Records of a stage on this machine, the newest last."""
    folder = workspace.hidden / "records" / stage
    found: list[dict[str, Any]] = [records.read_record(workspace, stage, path.stem)
                                   for path in (folder.glob("*.json") if folder.is_dir() else [])]
    return sorted((record for record in found if record.get("host") == records.host()["host"]),
                  key=lambda record: record.get("started", ""))


def _speed(workspace: Workspace, stage: str, flops: float) -> float | None:
    """Floating-point operations a second of the stage's newest run here of about as much work."""
    speeds = [record["flops"] / record["seconds"] for record in _records(workspace, stage)
              if record.get("flops") and record.get("seconds") and 1 / ALIKE <= record["flops"] / flops <= ALIKE]
    return speeds[-1] if speeds else None


_measured: list[float] = []


def _machine_flops() -> float:
    """Measured once a process: a fifth of a second of matrix products."""
    if not _measured:
        from genai_core.hardware import choose_device, matrix_flops_per_second

        _measured.append(matrix_flops_per_second(choose_device("auto")))
    return _measured[0]
