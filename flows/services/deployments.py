"""Serves the deployments of `prefect.yaml` without a worker: `genai up` runs it as `python -m` this module."""

import os
from pathlib import Path
from typing import Any

import yaml

from flows.services.health import wait_for
from tasks.store.workspace import REPOSITORY

START_SECONDS = 90.0
WORK_POOL = "genai"
"""Deployments of other work pools (a GPU's) are for the workers of those pools."""


def declared() -> list[dict[str, Any]]:
    """The deployments of `prefect.yaml` that need no machine of their own."""
    listed = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))["deployments"]
    return [entry for entry in listed if entry["work_pool"]["name"] == WORK_POOL]


def serve() -> None:
    """Serve them until stopped; one run at a time, since two trainings on one machine slow each other down."""
    from prefect import serve as serve_flows
    from prefect.flows import load_flow_from_entrypoint
    from prefect.schedules import Cron

    deployments: list[Any] = []
    for entry in declared():
        schedules = [Cron(schedule["cron"], schedule.get("timezone"), active=schedule.get("active", True),
                          slug=schedule.get("slug")) for schedule in entry.get("schedules", [])]
        flow: Any = load_flow_from_entrypoint(entry["entrypoint"])
        deployments.append(flow.to_deployment(
            name=entry["name"], description=entry["description"], tags=entry.get("tags", []), schedules=schedules,
            parameters=entry.get("parameters", {})))
    wait_for(f"{os.environ['PREFECT_API_URL']}/health", START_SECONDS)
    # a schedule that someone switched on stays on when the services are stopped
    serve_flows(*deployments, pause_on_shutdown=False, limit=1, print_starting_message=False)


if __name__ == "__main__":
    assert Path.cwd() == REPOSITORY, f"run it in {REPOSITORY}: the entrypoints are relative to it"
    serve()
