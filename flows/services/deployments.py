"""Serves the deployments of `prefect.yaml` without a worker: `genai up` runs it as `python -m` this module."""

import asyncio
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import yaml

from flows.services.health import wait_for
from tasks.catalog import FAMILIES
from tasks.store.workspace import REPOSITORY

START_SECONDS = 90.0
SILENCE = timedelta(seconds=60)
WORK_POOL = "genai"
"""Deployments of other work pools (a GPU's) are for the workers of those pools."""


def declared() -> list[dict[str, Any]]:
    """The deployments of `prefect.yaml` that need no machine of their own, and one for each family it does not list."""
    document = yaml.safe_load((REPOSITORY / "prefect.yaml").read_text(encoding="utf-8"))
    listed = [entry for entry in document["deployments"] if entry["work_pool"]["name"] == WORK_POOL]
    names = {entry["name"] for entry in listed}
    return listed + [{**document["definitions"]["family"], "name": family.name, "description": family.title,
                      "parameters": {"family": family.name, "preset": "laptop"}}
                     for family in FAMILIES.values() if family.name not in names]


def serve() -> None:
    """Serve them until stopped; one run at a time, since two trainings on one machine slow each other down."""
    from prefect.runner import Runner

    deployments = [deployment(entry) for entry in declared()]
    wait_for(f"{os.environ['PREFECT_API_URL']}/health", START_SECONDS)
    # a schedule that someone switched on stays on when the services are stopped
    runner = Runner(pause_on_shutdown=False, limit=1)
    for served in deployments:
        runner.add_deployment(served)
    _answer_health(int(os.environ["GENAI_HEALTH_PORT"]), lambda: _polls(runner))
    with suppress(KeyboardInterrupt):
        asyncio.run(runner.start())


def _polls(runner: Any) -> bool:
    """Whether the runner has asked for work lately; one that waits for nothing asks every two seconds."""
    return bool(runner.last_polled and datetime.now(UTC) - runner.last_polled < SILENCE)


def _answer_health(port: int, is_well: Callable[[], bool]) -> None:
    """Answer /health on loopback and nothing else: Prefect's own server of a runner lets everybody shut it down."""
    class Health(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            well = HTTPStatus.OK if is_well() else HTTPStatus.SERVICE_UNAVAILABLE
            self.send_response(well if self.path == "/health" else HTTPStatus.NOT_FOUND)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """No line for each look."""

    threading.Thread(target=ThreadingHTTPServer(("127.0.0.1", port), Health).serve_forever, daemon=True).start()


def deployment(entry: dict[str, Any]) -> Any:
    """A deployment as `prefect.yaml` declares it, to be served. Raises ValueError for a field that it would leave out.
    """
    from prefect.client.schemas.objects import ConcurrencyLimitConfig
    from prefect.flows import load_flow_from_entrypoint
    from prefect.schedules import Schedule

    given = dict(entry)
    flow: Any = load_flow_from_entrypoint(given.pop("entrypoint"))
    # a served deployment has no work pool, whose job template would pass these on: they become this process's own
    variables = dict(given.pop("work_pool").get("job_variables", {}))
    for name, value in variables.pop("env", {}).items():
        os.environ.setdefault(name, value)      # what the user set goes first
    schedules = [Schedule(**schedule) for schedule in given.pop("schedules", [])]
    limit = given.pop("concurrency_limit", None)
    allowed = {"name", "description", "tags", "parameters"}
    if left := {*given, *variables} - allowed:
        raise ValueError(f"prefect.yaml: {entry['name']}: serving knows no {', '.join(sorted(left))}")
    return flow.to_deployment(**given, schedules=schedules,
                              concurrency_limit=ConcurrencyLimitConfig(**limit) if isinstance(limit, dict) else limit)


if __name__ == "__main__":
    assert Path.cwd() == REPOSITORY, f"run it in {REPOSITORY}: the entrypoints are relative to it"
    serve()
