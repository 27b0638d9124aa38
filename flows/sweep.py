"""Several runs that differ in a few fields: what they share is made once, and a table compares what came out."""

import logging
from functools import partial
from typing import Any

from prefect import flow
from prefect.artifacts import create_table_artifact
from prefect.runtime import flow_run

from flows.parameters import preset_parameters
from flows.pipeline_run import Request, describe, parent_of_runs
from flows.search import Search, search_rows
from flows.train_llm import train_llm
from genai_core.errors import InputError
from tasks.execution import live_runs
from tasks.store.workspace import Workspace
from tasks.tables import markdown_table
from tasks.tracking import client as tracking

logger = logging.getLogger("tasks")

FAILED = "failed"
"""The column that says why a combination failed."""


class CombinationsFailed(InputError):
    """Some combinations of a sweep failed; the others are in its rows too."""

    def __init__(self, message: str, rows: list[dict[str, Any]]):
        super().__init__(message)
        self.rows = rows


def sweep_name() -> str:
    """What a sweep is called in Prefect, and its parent run in MLflow: with the fields that vary."""
    given = flow_run.parameters
    varied: dict[str, list[str]] = {}
    for combination in given.get("combinations") or []:
        for name, value in combination.items():
            if str(value) not in varied.setdefault(name, []):
                varied[name].append(str(value))
    if search := given.get("search"):
        varied |= {name: [str(value) for value in (values if isinstance(values, list) else [values])]
                   for name, values in Search.model_validate(search).fields.items()}
    overrides = {**(given.get("overrides") or {}), **{name: ",".join(values) for name, values in varied.items()}}
    return f"sweep · {describe(Request(given['preset'], overrides, until=given.get('until') or ''))}"


@flow(name="sweep", flow_run_name=sweep_name)
def sweep(preset: str, combinations: list[dict[str, Any]], overrides: dict[str, Any] | None = None,
          until: str = "evaluate", search: Search | None = None) -> list[dict[str, Any]]:
    """Run the pipeline for each combination of values, one after the other, under one MLflow run; a row for each.
    A search chooses the combinations itself.

    A combination that fails is a row with the reason, and the sweep goes on and fails at its end.

    Args:
        preset: A preset's name, or the path of a YAML file.
        combinations: For each run, what differs: "stage.field" to value.
        overrides: What all of them have in common, in the same form.
        until: The last stage of each run.
        search: In place of combinations: fields with their values or ranges, how many trials, and the figure that is
            to be small or large.
    """
    if bool(combinations) == bool(search):
        raise InputError("combinations: none is given; each is a mapping of stage.field to a value" if not search else
                         "combinations and search: give one of the two")
    count = search.trials if search else len(combinations)
    tags = {"prefect.flow_run_id": str(flow_run.id or ""), "preset": preset, "sweep": str(count)}
    parent = tracking.start_parent_run(sweep_name(), {"until": until, **(overrides or {})}, tags)
    with live_runs.noted(Workspace.current(), parent, str(flow_run.id or ""), f"genai sweep --preset {preset}"):
        token = parent_of_runs.set(parent)
        try:
            row = partial(_row, preset, overrides or {}, until)
            rows = search_rows(search, row, FAILED, logger.warning) if search else [row(each) for each in combinations]
        finally:
            parent_of_runs.reset(token)
        _show(parent, preset, rows)
        if failed := [row for row in rows if FAILED in row]:
            raise CombinationsFailed(f"{len(failed)} of {len(rows)} combinations failed, the first of them: "
                                     f"{failed[0][FAILED]}", rows)
    return rows


def columns(rows: list[dict[str, Any]]) -> list[str]:
    """The columns of all rows: what varied and the figures, and last why one failed."""
    names = dict.fromkeys(name for row in rows for name in row)
    return [name for name in names if name != FAILED] + ([FAILED] if FAILED in names else [])


def _row(preset: str, overrides: dict[str, Any], until: str, combination: dict[str, Any]) -> dict[str, Any]:
    try:
        figures = train_llm(**preset_parameters(preset), overrides={**overrides, **combination}, until=until)
    except Exception as error:      # one who ends the sweep raises no Exception
        logger.warning("%s failed: %s", combination, tracking.first_line(error))
        return {**combination, FAILED: tracking.first_line(error)}
    return {**combination, **figures}


def _show(parent: str, preset: str, rows: list[dict[str, Any]]) -> None:
    names = columns(rows)
    table = markdown_table(names, [[row.get(name, "") for name in names] for row in rows])
    tracking.log_text(parent, "\n".join(table), "sweep.md")
    create_table_artifact([{name: row.get(name, "") for name in names} for row in rows], key="sweep",
                          description=f"{len(rows)} runs of {preset}")
