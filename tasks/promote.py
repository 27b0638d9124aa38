"""Promotion as a task: the gates of the preset decide whether `champion` moves to this run's versions."""

import json
from pathlib import Path

from genai_core.config.pipeline import PipelineConfig
from genai_core.result import Result
from tasks.execution.pipeline import PipelineRun
from tasks.registry import releases as promotion
from tasks.registry import versions as registry
from tasks.stage import Context, Stage, stage_task
from tasks.store.artifacts import Artifact, read_manifest


class GateFailed(Exception):
    """A release did not meet a gate; its versions stay registered, tagged as failed."""


def _compute(config: PipelineConfig, inputs: dict[str, Path], out_dir: Path, context: Context) -> Result:
    from genai_core.stages import promote as gates

    figures: dict[str, float] = {}
    for stage, prefix in (("evaluate", ""), ("reward", "reward/"), ("rlhf", "rlhf/"), ("quantize", "quantize/")):
        metrics = read_manifest(inputs[stage])["metrics"]
        figures |= {f"{prefix}{name}": value for name, value in metrics.items()}
    return gates.run(config.promote, figures=figures, out_dir=out_dir, reporter=context.reporter)


STAGE = Stage(name="promote", core="genai_core.stages.promote", settings=("promote",),
              inputs=("evaluate", "reward", "rlhf", "quantize"), kind="report", compute=_compute,
              describe="hold the figures against the gates, move the alias champion")

judge_gates = stage_task(STAGE)


def promote(run: PipelineRun, *inputs: Artifact) -> Artifact:
    """Judge the gates, then move `champion` to the versions of this run or tag them as failed.

    Raises GateFailed with the gate, the figure and the bound.
    """
    return act_on(run, judge_gates(run, *inputs))


def act_on(run: PipelineRun, verdicts: Artifact) -> Artifact:
    """Do what judged gates say: move `champion`, or tag the versions of the run as failed and raise GateFailed."""
    listed = json.loads((verdicts.directory(run.workspace) / "gates.json").read_text(encoding="utf-8"))
    failed = [verdict for verdict in listed if not verdict["passed"]]
    if failed:
        lines = [f"gate {verdict['gate']}: {verdict['figure']} is {verdict['value']:.4f}, wanted "
                 f"{verdict['comparison']} {verdict['bound']:.4f}" for verdict in failed]
        for stage, version in run.versions.items():
            registry.tag(stage, version, {"gates": "failed", "gates.reason": "; ".join(lines)})
        raise GateFailed("; ".join(lines))
    promotion.promote_run(run.versions)
    return verdicts
