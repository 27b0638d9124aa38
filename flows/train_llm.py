"""From raw text to a promoted chat model: reading this flow is reading the list of stages."""

import logging
import time
from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.runtime import flow_run

from genai_core.config.pipeline import load_pipeline
from genai_core.errors import InputError
from tasks import records, tracking
from tasks.clean import clean
from tasks.collect import collect
from tasks.evaluate import evaluate
from tasks.instruct import instruct
from tasks.pretrain import pretrain
from tasks.promote import promote
from tasks.quantize import quantize
from tasks.report import markdown_with_curves, write_report
from tasks.requirements import check_data
from tasks.reward import reward
from tasks.rlhf import rlhf
from tasks.run import PipelineRun
from tasks.stages import STAGE_NAMES
from tasks.tables import flatten
from tasks.tokenize import tokenize
from tasks.version_data import version_data
from tasks.workspace import Workspace

logger = logging.getLogger("tasks")


@flow(name="train-llm")
def train_llm(preset: str = "laptop", overrides: dict[str, Any] | None = None, force: list[str] | None = None) -> str:
    """Train a language model through every stage; what was made before from the same inputs is taken as it is.

    Args:
        preset: smoke, laptop, gpu, cluster, or the path of a YAML file.
        overrides: Fields to set, as `stage.field` to value.
        force: Stages to execute again although their results are there.
    """
    run = start(preset, overrides or {}, force or [])
    began = time.monotonic()
    try:
        collected = collect(run)
        cleaned = clean(run, collected)
        check_data(run, cleaned)
        tokens = tokenize(run, cleaned)
        version_data(run, collected, cleaned, tokens)
        base = pretrain(run, tokens)
        instructed = instruct(run, base, cleaned)
        judge = reward(run, instructed, cleaned)
        aligned = rlhf(run, instructed, judge, cleaned)
        quantized = quantize(run, aligned, tokens)
        figures = evaluate(run, base, instructed, judge, aligned, quantized, tokens, cleaned)
        promote(run, figures, judge, aligned, quantized)
    except BaseException:
        tracking.end_run(run.parent_run_id, "FAILED")
        raise
    finally:
        if "evaluate" in run.artifacts:
            report(run, time.monotonic() - began)
    tracking.end_run(run.parent_run_id, "FINISHED")
    return run.parent_run_id


def start(preset: str, overrides: dict[str, Any], force: list[str]) -> PipelineRun:
    """Check everything that can be checked before anything is spent, and open the MLflow run."""
    unknown = set(force) - set(STAGE_NAMES)
    if unknown:
        raise InputError(f"force: unknown stage {sorted(unknown)[0]!r}; there are {', '.join(STAGE_NAMES)}")
    config = load_pipeline(preset, overrides)
    run = PipelineRun(config, Workspace.current(), frozenset(force), flow_run_id=str(flow_run.id or ""),
                      commit=records.git_commit())
    values = config.model_dump(mode="json", exclude={"collect": {"sources"}})
    tags = {"prefect.flow_run_id": run.flow_run_id, "git.commit": run.commit, "preset": preset}
    run.parent_run_id = tracking.start_parent_run(f"train-llm {preset}", flatten(values), tags)
    return run


def report(run: PipelineRun, seconds: float) -> None:
    markdown, html = write_report(run, run.workspace.reports / (run.flow_run_id or "local"), seconds)
    create_markdown_artifact(markdown_with_curves(run, markdown), key="run-report", description="Run report")
    logger.info("report: %s", html)


if __name__ == "__main__":
    train_llm()
