"""What people look at in the Prefect UI beside the states: model cards, the stage table, the report."""

from genai_core.context import logger
from tasks.catalog import find_stage
from tasks.pipeline import PipelineRun
from tasks.registry.versions import model_name
from tasks.store import records
from tasks.store.cost import recorded_cost
from tasks.store.workspace import Workspace
from tasks.tables import markdown_table
from tasks.tracking import client as tracking


def show_model_card(text: str, stage: str) -> None:
    _create(text, f"model-card-{stage.replace('_', '-')}", f"Model card of {stage}")


def show_stages(run: PipelineRun) -> None:
    """One row a stage: state, cost, and links to its MLflow run and model version."""
    rows: list[list[str]] = []
    for stage, artifact in run.artifacts.items():
        record = records.read_record(run.workspace, stage, artifact.key)
        version = run.versions.get(stage, "")
        title = find_stage(run.family, stage).title
        rows.append([stage, title, run.states[stage], f"{record.get('seconds', 0):.1f}", str(recorded_cost(record)),
                     _link(record.get("mlflow_run_id", "")[:8], tracking.run_link(record.get("mlflow_run_id", ""))),
                     _link(f"{model_name(stage)} v{version}", _version_link(stage, version)) if version else "",
                     f"`{artifact.key}`"])
    header = ["stage", "what it is", "state", "seconds to make", "cost", "MLflow run", "model version", "key"]
    lines = markdown_table(header, rows)
    _create("\n".join(["# Stages", "", *lines]), "stages", "Stages, with links to MLflow")


def show_report(text: str) -> None:
    _create(text, "run-report", "Run report")


def _create(markdown: str, key: str, description: str) -> None:
    from prefect.artifacts import create_markdown_artifact
    from prefect.context import FlowRunContext

    if FlowRunContext.get():
        create_markdown_artifact(markdown, key=key, description=description)
    else:
        logger.debug("no flow run to show %s in", key)


def _link(text: str, address: str) -> str:
    return f"[{text}]({address})" if address and text else text


def _version_link(stage: str, version: str) -> str:
    uri = Workspace.current().tracking_uri
    return f"{uri.rstrip('/')}/#/models/{model_name(stage)}/versions/{version}" if uri.startswith("http") else ""
