"""Two models side by side: their figures, how much of each difference is noise, and what they answer."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from genai_core.errors import InputError
from genai_core.evaluation.intervals import difference_interval
from tasks.catalog import lasting_stages, model_stages
from tasks.registry import versions
from tasks.store import published
from tasks.store.artifacts import KEY, MANIFEST, Damaged, Store, read_manifest
from tasks.store.workspace import Workspace

NOISE = "within the noise"
LOWER_IS_BETTER = ("bits_per_byte", "perplexity", "bits_per_character", "loss", "distance", "error")


@dataclass(frozen=True)
class Line:
    """One figure of both models; the interval holds the true difference in 95 % of the cases."""

    figure: str
    first: float
    second: float
    difference: float
    low: float | None
    high: float | None
    verdict: str
    """Which one is better, or that the difference is within the noise."""


@dataclass(frozen=True)
class Comparison:
    first: str
    second: str
    lines: list[Line]
    samples: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True)
class Evaluated:
    """A model's column of the report that evaluated it."""

    name: str
    figures: dict[str, float]
    outcomes: dict[str, list[list[float]]]
    samples: list[dict[str, str]]
    questions_from: str
    """Digest of the datasets that the evaluation questions were drawn from."""
    config: dict[str, Any]


def compare(first: str, second: str) -> Comparison:
    """Compare two registered models. Raises InputError for one that no run evaluated, or without a common
    figure."""
    a, b = evaluated(first), evaluated(second)
    notes = []
    paired = a.questions_from == b.questions_from and _asked_by(a.config) == _asked_by(b.config)
    if not paired:
        notes.append("the two were asked different questions (other data or another evaluate config): the intervals "
                     "treat them as independent")
    lines = [_line(name, a, b, paired) for name in a.figures if name in b.figures]
    if not lines:
        raise InputError(f"{a.name} is judged by {', '.join(a.figures)}, {b.name} by {', '.join(b.figures)}: "
                         "there is nothing to compare")
    column = "question" if all("question" in row for row in a.samples + b.samples) else "asked"
    by_question = {(row["task"], row[column]): row for row in b.samples}
    samples = [{"task": row["task"], "asked": row["asked"], "expected": row["expected"], "first": row["answered"],
                "second": by_question[row["task"], row[column]]["answered"]}
               for row in a.samples if (row["task"], row[column]) in by_question]
    return Comparison(a.name, b.name, lines, samples, notes)


def evaluated_figures(uri: str) -> dict[str, float]:
    """What the evaluation says of a registered model; nothing where no run evaluated it."""
    try:
        return evaluated(uri).figures
    except InputError:
        return {}


def _asked_by(config: dict[str, Any]) -> dict[str, Any]:
    """What of the settings decides which questions are asked: how a model was trained does not."""
    prompts = {name: config.get("rlhf", {}).get(name) for name in ("tasks", "completion_tokens")}
    tasks = {task: {name: value for name, value in fields.items() if name not in ("examples", "loss")}
             for task, fields in config.get("active_tasks", {}).items()}
    return {"evaluate": config.get("evaluate"), "tasks": tasks, **prompts}


def evaluated(uri: str) -> Evaluated:
    """What the newest report of evaluate says of a registered model. Raises InputError when no report, here or on the
    remote, has it."""
    report, column = evaluated_by(uri)
    version = versions.read_version(uri)
    manifest = read_manifest(report)
    return Evaluated(f"{version.name}/{version.version}", _read(report, "evaluation.json")[column],
                     _read(report, "outcomes.json").get(column, {}), _read(report, "samples.json").get(column, []),
                     _datasets(manifest["inputs"]), manifest["config"])


def evaluated_by(uri: str) -> tuple[Path, str]:
    """The newest report of evaluate that has a registered model, and its column there. Raises InputError likewise."""
    version = versions.read_version(uri)
    stage, digest = version.tags["stage"], version.tags["artifact.digest"]
    column = model_stages()[stage].column or stage
    workspace = Workspace.current()
    report = _report(workspace, stage, digest) or _fetched_report(workspace, version.tags.get("report.evaluate", ""))
    if report is None:
        raise InputError(f"{uri}: no report, here or on the remote, evaluated it; run its pipeline until evaluate")
    if column not in (evaluation := _read(report, "evaluation.json")):
        raise InputError(f"{uri}: a {stage} model is not in the table of evaluate; compare those that are: "
                         f"{', '.join(evaluation)}")
    return report, column


def _datasets(inputs: dict[str, str]) -> str:
    """Digests of what the evaluation questions were drawn from, datasets and tasks of lm-evaluation-harness, joined."""
    return " ".join(digest for name, digest in inputs.items()
                    if (name in lasting_stages() and name not in model_stages()) or name == "lm_eval")


def _report(workspace: Workspace, stage: str, digest: str) -> Path | None:
    """The newest report of evaluate that has this model among its inputs."""
    found = []
    for path in (workspace.reports / "evaluate").glob(f"*/{MANIFEST}"):
        try:
            if read_manifest(path.parent)["inputs"].get(stage) == digest:
                found.append(path.parent)
        except Damaged:
            continue
    return max(found, key=lambda path: path.stat().st_mtime, default=None)


def _fetched_report(workspace: Workspace, key: str) -> Path | None:
    """The report of evaluate that the registry names, out of the remote."""
    if not KEY.fullmatch(key):
        return None
    with Store.of(workspace).lock("evaluate", key):
        artifact = published.fetch(workspace, "evaluate", "report", key)
    return artifact.directory(workspace) if artifact else None


def _read(report: Path, name: str) -> Any:
    path = report / name
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _line(name: str, a: Evaluated, b: Evaluated, paired: bool) -> Line:
    first, second = a.figures[name], b.figures[name]
    low = high = None
    verdict = "no noise known"
    if name in a.outcomes and name in b.outcomes:
        low, high = difference_interval(a.outcomes[name], b.outcomes[name], paired, centre=second - first)
        verdict = NOISE if low <= 0 <= high else f"{_better(name, low > 0, a, b)} is better"
    return Line(name, first, second, second - first, low, high, verdict)


def _better(name: str, second_is_higher: bool, a: Evaluated, b: Evaluated) -> str:
    lower_wins = any(part in name for part in LOWER_IS_BETTER)
    return b.name if second_is_higher != lower_wins else a.name
