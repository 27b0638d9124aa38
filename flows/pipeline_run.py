"""Opening and closing a run: everything is checked before it, and its books are closed whatever happens."""

import json
import logging
import shlex
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import yaml
from prefect.logging.handlers import APILogWorker
from prefect.runtime import flow_run

from flows.parameters import Fields, overrides_of
from flows.side_by_side import make_side_by_side
from genai_core.config.pipeline import PipelineConfig
from genai_core.errors import BudgetSpent, InputError
from genai_core.families.config import FamilyConfig
from tasks.catalog import stages_for
from tasks.config import load_config, require_stages
from tasks.data_checks import check_data
from tasks.drift import check_drift
from tasks.execution import live_runs
from tasks.execution.plan import plan
from tasks.execution.task import LastStageDone, make
from tasks.execution.version_data import version_data
from tasks.pipeline import PipelineRun
from tasks.registry.opponent import require_opponent
from tasks.registry.promotion import models_lacking, repair
from tasks.registry.releases import in_service
from tasks.stage import Stage
from tasks.store import records
from tasks.store.disk import require_space
from tasks.store.workspace import Workspace
from tasks.tables import flatten
from tasks.tracking import client as tracking
from tasks.views import prefect_artifacts
from tasks.views.report import markdown_with_curves, plot_curves, write_report

logger = logging.getLogger("tasks")

parent_of_runs: ContextVar[str] = ContextVar("parent_of_runs", default="")
"""The MLflow run under which runs appear: a sweep's."""


@dataclass(frozen=True)
class Limits:
    """What a run may take, and whose word it waits for; no part of what it makes."""

    max_hours: float = 0.0
    max_cost: float = 0.0
    """In the currency of `runtime.price_per_hour`."""
    approval_hours: float = 0.0
    """How long to wait for a person's word before a release comes into service; 0 asks nobody."""

    def seconds(self, price_per_hour: float) -> float | None:
        """Time until the budget is spent; None without one. Raises InputError for a cost without a price."""
        if self.max_cost and not price_per_hour:
            raise InputError("max_cost: what an hour costs is not known; set runtime.price_per_hour")
        hours = [self.max_hours, *([self.max_cost / price_per_hour] if self.max_cost else [])]
        return min((3600 * each for each in hours if each), default=None)


@dataclass(frozen=True)
class Request:
    """What a user asks for: a preset, what differs from it, and which stages to run."""

    preset: str
    overrides: dict[str, Any]
    force: tuple[str, ...] = ()
    until: str = ""
    only: str = ""
    family: str = ""
    """Name of the family; empty for the language model."""
    limits: Limits = Limits()

    def config(self) -> PipelineConfig | FamilyConfig:
        """The config of the run. Raises InputError for a field, a stage or a preset that there is not."""
        config = load_config(self.preset, self.family, self.overrides)
        for option, stages in (("force", self.force), ("until", (self.until,)), ("only", (self.only,))):
            require_stages(option, stages, config)
        return config

    def command(self) -> str:
        """The command that starts the same run."""
        parts = ["genai", "run", *(["--family", self.family] if self.family else []), "--preset", self.preset]
        for name, value in self.overrides.items():
            parts += ["--set", f"{name}={json.dumps(value)}"]
        for option, stage in (("--until", self.until), ("--only", self.only)):
            parts += [option, stage] if stage else []
        return shlex.join(parts)


def run_name() -> str:
    """What a flow run is called in Prefect: preset, what differs from it, and when it began."""
    given = flow_run.parameters
    fields = Fields.model_validate(given.get("fields") or {})
    overrides = overrides_of(given.get("depth") or 0, fields, given.get("overrides") or {})
    return describe(Request(given.get("preset_file") or given.get("preset", ""), overrides, given.get("force") or (),
                            given.get("until") or "", given.get("only") or "", given.get("family") or ""))


def describe(request: Request) -> str:
    """What a run is, for people: `laptop · instruct.epochs=2 · 2026-11-25 00:05`."""
    shown = [f"{name}={value}" for name, value in request.overrides.items()]
    for option, value in (("until", request.until), ("only", request.only), ("force", ", ".join(request.force))):
        shown += [f"{option} {value}"] if value else []
    changes = ", ".join(shown)
    parts = [request.family, Path(request.preset).name, changes if len(changes) <= 80 else f"{changes[:80]} …",
             f"{datetime.now():%Y-%m-%d %H:%M}"]
    return " · ".join(part for part in parts if part)


@contextmanager
def opened(request: Request) -> Iterator[PipelineRun]:
    """A run with its MLflow run open; it ends early, and well, after the stage that `until` or `only` names.

    The last stage is no early end: what it judged is still to be acted on.
    """
    for logger_name in ("genai_core", "tasks"):      # Prefect hands their lines to the flow run's log from here on
        logging.getLogger(logger_name).setLevel(logging.INFO)
    config, workspace = request.config(), Workspace.current()
    stages = stages_for(config)
    require_stages("runtime.placement", config.runtime.placement, config)
    if request.only:
        _require_what_comes_before(config, workspace, request)
    until = request.until or request.only
    run = PipelineRun(config, workspace, frozenset(request.force),
                      until="" if until == stages[-1].name else until,
                      command=request.command(), flow_run_id=str(flow_run.id or ""), commit=records.git_commit())
    seconds = request.limits.seconds(config.runtime.price_per_hour * config.runtime.hosts)
    run.stop_at = time.time() + seconds if seconds else None
    require_space(workspace, "run")
    live_runs.close_books(workspace)
    repair(request.family)
    if not run.until:
        require_opponent(request.family, stages, workspace)
        _warn_of_a_lesser_release(run)
    tags = {"prefect.flow_run_id": run.flow_run_id, "git.commit": run.commit, "preset": request.preset,
            "command": run.command}
    if parent := parent_of_runs.get():
        tags["mlflow.parentRunId"] = parent
    values = config.model_dump(mode="json")
    parameters = flatten(config.model_dump(mode="json", exclude={"collect": {"sources"}}))
    run.parent_run_id = tracking.start_parent_run(describe(request), parameters, tags)
    with live_runs.noted(workspace, run.parent_run_id, run.flow_run_id, run.command):
        tracking.log_text(run.parent_run_id, yaml.safe_dump(values, sort_keys=False, allow_unicode=True), "config.yaml")
        try:
            yield run
        except LastStageDone:
            pass
        except BaseException as error:
            with tracking.told("the report of the run"):
                _close(run, killed=not isinstance(error, Exception))
            raise
        _close(run)


def _warn_of_a_lesser_release(run: PipelineRun) -> None:
    """Said before the first hour, not after the last: this run will not come into service."""
    champion = in_service(run.family)
    if champion and (lacking := models_lacking(run, champion)):
        logger.warning(lacking)


def make_all(run: PipelineRun, stages: Sequence[Stage]) -> None:
    """Make the artifacts of the stages one after the other, or of those after the datasets some side by side.

    The data is checked once it is clean, and versioned after the last dataset, before anything is trained.
    """
    last_dataset = [stage.name for stage in stages if stage.kind == "dataset"][-1]
    for number, stage in enumerate(stages):
        if run.config.runtime.stages_at_once > 1 and "dataset" not in [each.kind for each in stages[number:]]:
            make_side_by_side(run, stages[number:], _make_within_budget)
            return
        _make_within_budget(run, stage)
        if not run.family and stage.name == "clean":
            check_data(run)
            check_drift(run)
        if stage.name == last_dataset:
            version_data(run)


def _make_within_budget(run: PipelineRun, stage: Stage) -> None:
    """Stop within a stage, or after one that was made, never after one that was there: so each run gets further than
    the one before."""
    try:
        make(run, stage)
    except BudgetSpent as stopped:
        raise BudgetSpent(f"the budget of this run is spent: {stage.name} {stopped}; the same command continues from it"
                          ) from None
    made = run.states[stage.name] == "Completed" and stage.name != run.stages[-1].name
    if made and run.stop_at is not None and time.time() >= run.stop_at:
        raise BudgetSpent(f"the budget of this run is spent: stopped after {stage.name}; the same command continues")


def _require_what_comes_before(config: PipelineConfig | FamilyConfig, workspace: Workspace, request: Request) -> None:
    for line in plan(config, workspace, stages=stages_for(config)):
        if line.stage == request.only:
            return
        if line.state not in ("hit", "fetch"):
            raise InputError(f"only {request.only}: {line.stage} is not there ({line.why}); run with --until "
                             f"{request.only} first")


def _close(run: PipelineRun, killed: bool = False) -> None:
    """The stage table and the report of what there is."""
    if not killed and run.artifacts:      # whoever kills a run waits for it to be gone
        prefect_artifacts.show_stages(run)
        if "evaluate" in run.artifacts:
            directory = run.workspace.reports / (run.flow_run_id or run.parent_run_id)
            images = plot_curves(run)
            markdown, html = write_report(run, images, directory, time.monotonic() - run.began)
            prefect_artifacts.show_report(markdown_with_curves(markdown, images))
            logger.info("report: %s", html)
    else:
        APILogWorker.drain_all(timeout=5)      # the process may be gone before its log is sent
