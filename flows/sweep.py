"""Several runs that differ in a few fields: what they share is made once, and a table compares what came out."""

from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from flows.parameters import preset_parameters
from flows.pipeline_run import Request, describe, parent_of_runs
from flows.train_llm import train_llm
from tasks.tables import markdown_table
from tasks.tracking import client as tracking


def sweep_name() -> str:
    """What a sweep is called in Prefect, and its parent run in MLflow."""
    given = flow_run.parameters
    request = Request(given["preset"], given.get("overrides") or {}, until=given.get("until") or "")
    return f"sweep · {describe(request)}"


@flow(name="sweep", flow_run_name=sweep_name)
def sweep(preset: str, combinations: list[dict[str, Any]], overrides: dict[str, Any] | None = None,
          until: str = "evaluate") -> list[dict[str, Any]]:
    """Run the pipeline for each combination of values, one after the other, under one MLflow run; a row for each.

    Args:
        preset: A preset's name, or the path of a YAML file.
        combinations: For each run, what differs: "stage.field" to value.
        overrides: What all of them have in common, in the same form.
        until: The last stage of each run.
    """
    tags = {"prefect.flow_run_id": str(flow_run.id or ""), "preset": preset, "sweep": str(len(combinations))}
    parent = tracking.start_parent_run(sweep_name(), {"until": until, **(overrides or {})}, tags)
    token = parent_of_runs.set(parent)
    rows: list[dict[str, Any]] = []
    try:
        for combination in combinations:
            both = {**(overrides or {}), **combination}
            figures = train_llm(**preset_parameters(preset), overrides=both, until=until)
            rows.append({**combination, **figures})
    except BaseException:
        tracking.end_run(parent, "FAILED")
        raise
    finally:
        parent_of_runs.reset(token)
    table = markdown_table(list(rows[0]), [list(row.values()) for row in rows])
    tracking.log_text(parent, "\n".join(table), "sweep.md")
    create_table_artifact(rows, key="sweep", description=f"{len(rows)} runs of {preset}")
    tracking.end_run(parent, "FINISHED")
    return rows

