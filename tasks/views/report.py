"""The run report: one Markdown and one HTML file with the stage table, the figures, the curves and pictures."""

import base64
import json
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader

from genai_core.config.pipeline import PipelineConfig
from genai_core.pictures import as_base64, figure_and_axes
from genai_core.training.curves import Curves, finite
from tasks.catalog import family_named, stages_of
from tasks.pipeline import PipelineRun
from tasks.registry.versions import key_figures
from tasks.store import records
from tasks.store.artifacts import read_manifest
from tasks.store.cost import Cost, recorded_cost
from tasks.tables import markdown_table, shown
from tasks.tracking import client as tracking


@dataclass(frozen=True)
class StageLine:
    """One row of the stage table."""

    name: str
    state: str
    seconds: float
    cost: Cost
    version: str
    key: str
    figures: str


def plot_curves(run: PipelineRun) -> dict[str, str]:
    """A PNG of the curves of each stage, and the pictures of a family's evaluation: what it shows to base64."""
    images = {f"curves of {stage}": _plot(curves, stage) for stage, curves in _curves(run).items()}
    for file, caption in (_json(run, "evaluate", "pictures.json") or {}).items():
        picture = run.artifacts["evaluate"].directory(run.workspace) / file
        images[caption] = base64.b64encode(picture.read_bytes()).decode()
    return images


def write_report(run: PipelineRun, images: dict[str, str], directory: Path, total_seconds: float) -> tuple[Path, Path]:
    """Write `report.md` and `report.html` of a run to `directory` and to its MLflow run; the two paths."""
    directory.mkdir(parents=True, exist_ok=True)
    content = _content(run, total_seconds)
    markdown, html = directory / "report.md", directory / "report.html"
    markdown.write_text(_markdown(content), encoding="utf-8")
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), autoescape=True)
    page = environment.get_template("report.html.jinja").render(images=images, shown=shown, gate_headings=GATE_HEADINGS,
                                                                       **content)
    html.write_text(page, encoding="utf-8")
    for path in (markdown, html):
        tracking.client().log_artifact(run.parent_run_id, str(path))
    for file in _json(run, "evaluate", "pictures.json") or ():
        picture = run.artifacts["evaluate"].directory(run.workspace) / file
        tracking.client().log_artifact(run.parent_run_id, str(picture), "pictures")
    return markdown, html


def markdown_with_curves(markdown: Path, images: dict[str, str]) -> str:
    """The Markdown report with the pictures inside, as the Prefect UI shows it."""
    shown_images = [f"![{caption}](data:image/png;base64,{image})\n\n{caption}" for caption, image in images.items()]
    return "\n\n".join([markdown.read_text(encoding="utf-8"), "## Pictures", *shown_images])


def _content(run: PipelineRun, total_seconds: float) -> dict[str, Any]:
    lines = []
    for stage, artifact in run.artifacts.items():
        metrics = read_manifest(artifact.directory(run.workspace))["metrics"]
        record = records.read_record(run.workspace, stage, artifact.key)
        figures = key_figures(stage, metrics) or _first_figures(metrics)
        lines.append(StageLine(stage, run.states[stage], record.get("seconds", 0.0), recorded_cost(record),
                               run.versions.get(stage, ""), artifact.key,
                               ", ".join(f"{name} {shown(value)}" for name, value in figures.items())))
    evaluation = _json(run, "evaluate", "evaluation.json") or {}
    in_service = _json(run, "promote", "champion.json") or {}
    evaluation |= {model: column["figures"] for model, column in in_service.items()}
    intervals = _json(run, "evaluate", "intervals.json") or {}
    intervals |= {model: column.get("intervals", {}) for model, column in in_service.items()}
    names = list(dict.fromkeys(figure for figures in evaluation.values() for figure in figures))
    table = [[name, *(_with_interval(evaluation[model].get(name), intervals.get(model, {}).get(name))
                      for model in evaluation)] for name in names]
    samples = _json(run, "evaluate", "samples.json") or {}
    asked = [{**row, "answers": {model: rows[index]["answered"] for model, rows in samples.items()}}
             for index, row in enumerate(next(iter(samples.values()), []))]
    return {"stages": lines, "models": list(evaluation), "table": table, "samples": asked,
            "gates": gate_rows(_json(run, "promote", "gates.json") or []),
            "flow_run": run.flow_run_id, "commit": run.commit,
            "dataset_md5": run.dataset_md5, "total_seconds": total_seconds, "title": _title(run),
            "licences": _json(run, "collect", "data_card.json") or {},
            "cost": sum((line.cost for line in lines), Cost())}


def _with_interval(value: float | None, interval: list[float] | None) -> float | str:
    """A figure with the ends of its 95 % interval, where noise is known."""
    if value is None:
        return ""
    return f"{shown(value)} [{shown(interval[0])}, {shown(interval[1])}]" if interval else value


GATE_HEADINGS = ["gate", "figure", "is", "95 % interval", "wanted", "verdict"]


def gate_rows(gates: list[dict[str, Any]]) -> list[list[str]]:
    """One row for each gate, by GATE_HEADINGS; a comparison of two models has the interval of their difference."""
    rows = []
    for gate in gates:
        compared = gate.get("difference") is not None
        what = "stretches" if gate["figure"].startswith("bits_per_byte") else "questions"
        interval = f"{shown(gate['low'])} to {shown(gate['high'])}, {gate['questions']:,} {what}" if compared else ""
        rows.append([gate["gate"], gate["figure"], shown(gate["difference" if compared else "value"]), interval,
                     f"{gate['comparison']} {shown(gate['bound'])}", "passed" if gate["passed"] else "FAILED"])
    return rows


def _first_figures(metrics: dict[str, float]) -> dict[str, float]:
    """The first three that say something: a dataset without chats has zero of them, a release better zero failed gates.
    """
    return dict([(name, value) for name, value in metrics.items() if value or name == "failed_gates"][:3])


def _title(run: PipelineRun) -> str:
    if isinstance(run.config, PipelineConfig):
        return f"Language model of depth {run.config.depth}"
    return family_named(run.family).title


def _markdown(content: dict[str, Any]) -> str:
    lines = [f"# {content['title']}: run report", "",
             f"Flow run `{content['flow_run']}`, commit `{content['commit'][:12]}`, data `{content['dataset_md5']}`, "
             f"{content['total_seconds']:.0f} s in all. To make everything once: {content['cost']} (energy is an "
             "estimate).", "", "## Stages", ""]
    lines += markdown_table(["stage", "state", "cost", "version", "key", "figures"],
                            [[line.name, line.state, str(line.cost), line.version, line.key, line.figures]
                             for line in content["stages"]])
    lines += ["", "## Figures", "", "In brackets the 95 % interval, where noise is known.", "",
              *markdown_table(["figure", *content["models"]], content["table"])]
    lines += ["", "## Gates", "", *markdown_table(GATE_HEADINGS, content["gates"])]
    lines += ["", "## Samples", ""] if content["samples"] else [""]
    for sample in content["samples"]:
        lines.append(f"**{sample['task']}**: {_inline(sample['asked'])}")
        lines += ["", *(f"- {model}: {_inline(answer)}" for model, answer in sample["answers"].items()),
                  f"- expected: {_inline(sample['expected'])}" if sample["expected"] else "", ""]
    lines += ["## Licences of the data", ""]
    lines += [f"- {name}: {entry['licence']} ({entry['attribution']})" for name, entry in content["licences"].items()]
    return "\n".join(lines) + "\n"


def _inline(text: str) -> str:
    """Text of a model or a dataset as one line in which nothing is markup."""
    return f"<code>{escape(' '.join(text.split())[:300])}</code>".replace("|", "&#124;").replace("`", "&#96;")


def _json(run: PipelineRun, stage: str, name: str) -> Any:
    artifact = run.artifacts.get(stage)
    path = artifact.directory(run.workspace) / name if artifact else None
    return json.loads(path.read_text(encoding="utf-8")) if path and path.is_file() else None


def _curves(run: PipelineRun) -> dict[str, Curves]:
    found = {}
    for stage in stages_of(run.family):
        curves = _json(run, stage.name, "curves.json") or {}
        if chosen := {name: curves[name] for name in stage.curves if name in curves}:
            found[stage.name] = chosen
    return found


def _plot(curves: Curves, title: str) -> str:
    """A PNG of the curves in base64; what is far from the first curve in scale gets its own axis."""
    figure, axes = figure_and_axes(6, 3.2)
    axis = axes
    for number, (name, points) in enumerate(curves.items()):
        if name.startswith("bits_per_byte") and axis is axes and number:
            axis = axes.twinx()
            axis.set_ylabel("bits per byte (dots)")
        drawn = finite(points)      # an empty one keeps its place in the legend: that it has no point is worth seeing
        steps, values = [step for step, _ in drawn], [value for _, value in drawn]
        mark = "o" if len(steps) < 30 else None
        axis.plot(steps, values, color=f"C{number}", label=name, marker=mark, linewidth=1, markersize=4)
    axes.set_title(title)
    axes.set_xlabel("step")
    axes.set_ylabel(next(iter(curves)))
    handles = [line for part in figure.axes for line in part.get_lines()]
    axes.legend(handles, [str(line.get_label()) for line in handles], fontsize=8)
    axes.grid(alpha=0.3)
    return as_base64(figure)
