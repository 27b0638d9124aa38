"""`genai up`, `genai down`, `genai status`: the services that a team leaves running."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Annotated, Any

import typer

from flows.cli.commands.shared import AsJson, console, opened_workspace
from flows.services.environment import running_services
from flows.services.password import password_file
from genai_core.errors import InputError
from tasks.execution.processes import Process
from tasks.store.workspace import REPOSITORY, Workspace

START_SECONDS = 240.0
DETACHED_SECONDS = START_SECONDS + 30.0
"""Longer than what it waits for, so that the log names the service that did not start."""
STOP_SECONDS = 60.0
Port = typer.Option(min=1, max=65535)


def up(detach: Annotated[bool, typer.Option(help="Return once everything is healthy, and leave it running.")] = False,
       prefect_port: Annotated[int, Port] = 4200, mlflow_port: Annotated[int, Port] = 5000,
       deployments_port: Annotated[int, typer.Option(min=1, max=65535, help="Where the process that serves the "
                                                     "deployments says that it is well.")] = 8080,
       serve_port: Annotated[int, typer.Option(min=1, max=65535, help="Where the model in service answers, as with "
                                               "`genai serve`.")] = 8000) -> None:
    """Start a Prefect server, an MLflow server, the deployments and the model in service, on loopback; Ctrl-C stops all
    of them.

    Servers named by PREFECT_API_URL or MLFLOW_TRACKING_URI are used in place of own ones.
    """
    workspace = Workspace.current()
    if state := running_services(workspace):
        console.print("already running in this workspace:")
        _show(state)
        return
    opened_workspace()
    if detach:
        arguments = ["--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port), "--deployments-port",
                     str(deployments_port), "--serve-port", str(serve_port)]
        _detached(workspace, arguments)
        return
    from flows.services.supervisor import Supervisor, choose_services

    services, notes = choose_services(workspace, {"Prefect": prefect_port, "MLflow": mlflow_port,
                                                  "deployments": deployments_port, "serve": serve_port})
    for note in notes:
        console.print(note, highlight=False)
    supervisor = Supervisor(workspace, services)
    began = time.monotonic()
    try:
        supervisor.start()
        console.print("starting …", highlight=False)
        healthy: dict[str, bool] = {}
        while not all(healthy.values()) or not healthy:
            supervisor.look_after()
            healthy = supervisor.healthy()
            if supervisor.stopping.wait(0.3):
                return
            needed = any(service.needed and not healthy[service.name] for service in services)
            if (waited := time.monotonic() - began) > (START_SECONDS if needed else START_SECONDS / 2):
                missing = ", ".join(name for name, well in healthy.items() if not well)
                told = f"{missing} did not start within {waited:.0f} s; the logs are in {supervisor.logs}"
                if needed:
                    raise InputError(told)
                console.print(told, highlight=False, soft_wrap=True)
                break
        state = running_services(workspace)
        assert state
        _show(state)
        console.print(f"healthy after {time.monotonic() - began:.1f} s; logs in {supervisor.logs}; Ctrl-C stops "
                      "everything", highlight=False, soft_wrap=True)
        supervisor.wait()
    finally:
        console.print("stopping …", highlight=False)
        supervisor.stop()


def down() -> None:
    """Stop what `genai up` started; a run in progress saves a checkpoint first."""
    state = running_services(Workspace.current())
    if not state:
        return console.print("nothing is running in this workspace")
    try:
        process = Process(state["supervisor"])
    except ProcessLookupError:      # it ended in this moment
        return console.print("nothing is running in this workspace")
    process.send(signal.SIGTERM)
    if not process.wait(STOP_SECONDS):
        process.send(signal.SIGKILL)      # the lifelines see it and end the services
        process.wait(STOP_SECONDS)
    console.print("stopped")


def status(as_json: AsJson = False) -> None:
    """Show what `genai up` runs in this workspace, and whether it is well."""
    state = running_services(Workspace.current())
    if as_json:
        from flows.services.health import answers

        services = {name: {**entry, "healthy": answers(entry["health"])}
                    for name, entry in (state or {"services": {}})["services"].items()}
        return typer.echo(json.dumps({"running": bool(state), "services": services}, indent=1))
    if not state:
        return console.print("nothing is running in this workspace; `genai up` starts it")
    _show(state)


def _show(state: dict[str, Any]) -> None:
    from flows.services.health import answers

    for name, entry in state["services"].items():
        health = "[green]healthy        [/]" if answers(entry["health"]) else "[red]does not answer[/]"
        console.print(f"  {name:12} {health} {entry['page']}", soft_wrap=True, highlight=False)
    if state.get("own"):
        file = password_file(Workspace.current())
        console.print(f"to log in: Prefect's page asks for the line in {file}, MLflow's for user and password in it",
                      soft_wrap=True, highlight=False, markup=False)


def _detached(workspace: Workspace, arguments: list[str]) -> None:
    """The same command in a session of its own; this one returns once it is healthy."""
    log = workspace.hidden / "logs" / "up.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as stream:
        process = subprocess.Popen([sys.executable, "-m", "flows.cli.command", "up", *arguments], cwd=REPOSITORY,
                                   stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, start_new_session=True,
                                   env={**os.environ, "PYTHONUNBUFFERED": "1"})
    deadline = time.monotonic() + DETACHED_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if "healthy after" in log.read_text(encoding="utf-8", errors="replace"):
            break
        time.sleep(0.2)
    else:
        with suppress(ProcessLookupError):
            process.terminate()
        last = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-1:]
        raise InputError(f"the services did not start ({' '.join(last).removeprefix('genai: ')}); see {log}")
    typer.echo(log.read_text(encoding="utf-8").replace("; Ctrl-C stops everything", "; `genai down` stops everything"),
               nl=False)
