"""The command `genai`: run the pipeline, see what a run would do, talk to a model, list the registry."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from genai_core.config.pipeline import load_pipeline, parse_overrides, preset_names
from genai_core.errors import InputError, TrainingDiverged

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode="markdown",
                  pretty_exceptions_enable=False,
                  help="Train your own language model, from raw text to a quantized, registered chat model.\n\n"
                       "GENAI_HOME names the workspace for data, models, MLflow and Prefect (default: the repository).")
console = Console()

Preset = Annotated[str, typer.Option(help=f"One of {', '.join(preset_names())}, or the path of a YAML file.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE",
                                                    help="Set a field of a stage; may be given several times.")]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Execute this stage although its result is "
                                                                       "there; may be given several times.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


@app.command()
def run(preset: Preset = "laptop", settings: Settings = None, force: Force = None) -> None:
    """Run every stage that is not cached, and show it live.

    Example: `genai run --set instruct.epochs=2` trains again from the instruct stage on.
    """
    overrides = parse_overrides(settings or [])
    load_pipeline(preset, overrides)      # a typing mistake ends here, before anything starts
    from flows.environment import configure, prefect_api
    from tasks.workspace import Workspace

    began = time.monotonic()
    workspace = Workspace.current()
    configure(workspace)
    with prefect_api() as server:
        from flows.terminal import View
        from flows.train_llm import train_llm
        from tasks import tracking

        tracking.experiment_id()       # the database is made while the server starts
        if server:
            server.wait()
        view = View(console)
        with view.shown():
            train_llm(preset, overrides, force or [])
        in_stages = sum(view.seconds.values())
    total = time.monotonic() - began
    cached = sum(state == "Cached" for state in view.states.values())
    console.print(f"\n{len(view.states) - cached} tasks executed, {cached} cached; {total:.1f} s in all, "
                  f"{in_stages:.1f} s in stages", highlight=False)
    newest = max(workspace.reports.glob("*/report.html"), key=lambda path: path.stat().st_mtime)
    console.print(f"report:  {newest}\ntalk:    genai chat\nmodels:  genai models", highlight=False, markup=False,
                  soft_wrap=True)


@app.command()
def plan(preset: Preset = "laptop", settings: Settings = None, force: Force = None, as_json: AsJson = False) -> None:
    """Show what a run would do: each stage hit or miss and why, and what it would take. Nothing is executed."""
    config = load_pipeline(preset, parse_overrides(settings or []))
    from flows.environment import configure
    from tasks.workspace import Workspace

    workspace = Workspace.current()
    configure(workspace)
    from dataclasses import asdict

    from tasks.plan import plan as make_plan

    lines = make_plan(config, workspace, frozenset(force or []))
    if as_json:
        typer.echo(json.dumps([asdict(line) for line in lines], indent=1))
        return
    table = Table("stage", "state", "why")
    for heading in ("parameters", "tokens", "FLOPs", "memory", "time"):
        table.add_column(heading, justify="right", no_wrap=True)
    for line in lines:
        colour = {"hit": "green", "miss": "yellow"}.get(line.state, "dim")
        table.add_row(line.stage, f"[{colour}]{line.state}", line.why, *_costs(line))
    console.print(table)
    known = [line.seconds for line in lines if line.state != "hit" and line.seconds is not None]
    unknown = [line.stage for line in lines if line.state != "hit" and line.seconds is None]
    if known or unknown:
        note = f" (not counting {', '.join(unknown)}: nothing tells before their first run)" if unknown else ""
        console.print(f"estimated: {sum(known):,.0f} s{note}", highlight=False)


@app.command()
def chat(model: Annotated[str, typer.Argument(help="A model directory, or models:/NAME@ALIAS.")] =
         "models:/genai-quantize@champion",
         question: Annotated[str | None, typer.Option(help="Ask this and leave.")] = None,
         temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
         tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 100,
         seed: Annotated[int | None, typer.Option(help="Repeatable sampling.")] = None) -> None:
    """Talk to a model; answers appear as they are made. An empty line or Ctrl-D ends the conversation."""
    directory = _model_directory(model)
    from genai_core.inference.chat import ChatModel
    from genai_core.inference.generate import Sampling

    loaded = ChatModel(directory)
    messages: list[dict[str, str]] = []
    while True:
        asked = question if question is not None else _ask()
        if not asked:
            return
        messages.append({"role": "user", "content": asked})
        answer = ""
        for piece in loaded.answer(messages, tokens, Sampling(temperature), seed):
            answer += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        if question is not None:
            return
        messages.append({"role": "assistant", "content": answer})


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the registry: stage, version, aliases, parent, key figures, local path."""
    from flows.environment import configure
    from tasks.workspace import Workspace

    configure(Workspace.current())
    from tasks.registry import list_versions
    from tasks.tables import shown

    rows = list_versions()
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    if not rows:
        console.print("no model is registered yet; `genai run` makes the first ones")
        return
    table = Table("stage", "version", "aliases", "parent", "figures", "gates", "path")
    for row in rows:
        figures = "\n".join(f"{name} {shown(value)}" for name, value in row["figures"].items())
        table.add_row(row["stage"], str(row["version"]), ", ".join(row["aliases"]),
                      row["parent"].removeprefix("models:/"), figures, row["gates"], _relative(row["path"]))
    console.print(table)


def main() -> None:
    """Errors that speak of the input are one line; anything else keeps its traceback."""
    try:
        app()
    except (InputError, TrainingDiverged) as error:
        _fail(str(error))
    except Exception as error:
        if type(error).__name__ == "GateFailed":      # importing it would import Prefect for `genai --help`
            _fail(str(error))
        raise
    except KeyboardInterrupt:
        _fail("interrupted; the same command continues from the last checkpoint", code=130)


def _fail(message: str, code: int = 1) -> None:
    sys.stderr.write(f"genai: {message}\n")
    sys.stderr.flush()
    os._exit(code) if code == 130 else sys.exit(code)


def _model_directory(model: str) -> Path:
    if not model.startswith("models:/"):
        path = Path(model).expanduser()
        inner = path / "int8"
        return inner if inner.is_dir() else path
    from flows.environment import configure
    from tasks.workspace import Workspace

    configure(Workspace.current())
    from tasks.registry import resolve

    path = resolve(model)
    return path / "int8" if (path / "int8").is_dir() else path


def _ask() -> str:
    try:
        return console.input("[bold cyan]you[/] › ").strip()
    except EOFError:
        return ""


def _costs(line: Any) -> list[str]:
    def count(value: float | None, unit: float, suffix: str) -> str:
        return "" if value is None else f"{value / unit:,.2f} {suffix}"

    seconds = "" if line.seconds is None else f"{line.seconds:,.0f} s"
    return [count(line.parameters, 1e6, "M"), count(line.tokens, 1e6, "M"), count(line.flops, 1e12, "T"),
            count(line.memory_bytes, 2**30, "GiB"), seconds]


def _relative(path: str) -> str:
    if not path:
        return "not here"
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path


if __name__ == "__main__":
    main()
