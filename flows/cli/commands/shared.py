"""What several commands share: options, the console, and the workspace with its environment set."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from genai_core.config.presets import preset_names
from genai_core.errors import InputError
from tasks.catalog import FAMILIES
from tasks.store.workspace import Workspace

OWN = "Your own data (each option may be given several times)"

console = Console(width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "160")))
"""Eighty columns, the usual width of what is no terminal, would cut the tables."""

Preset = Annotated[str, typer.Option(help=f"One of {', '.join(preset_names())}, or the path of a YAML file.")]
Family = Annotated[str, typer.Option(metavar="NAME", help=f"Another generative family instead of the language model: "
                                                           f"{', '.join(FAMILIES)}.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="STAGE.FIELD=VALUE",
                                                    help="Set a field of a stage; may be given several times.")]
Force = Annotated[list[str] | None, typer.Option(metavar="STAGE", help="Execute this stage although its result is "
                                                                       "there; may be given several times.")]
Until = Annotated[str, typer.Option(metavar="STAGE", help="End after this stage.")]
Text = Annotated[list[str] | None, typer.Option(metavar="PATH", rich_help_panel=OWN,
                                                help="Text to pretrain on: a file, a folder, a pattern or an address.")]
Chats = Annotated[list[str] | None, typer.Option(metavar="PATH", rich_help_panel=OWN,
                                                 help="Chats to fine-tune on: OpenAI messages, ShareGPT, Alpaca, or "
                                                      "questions and answers.")]
Preferences = Annotated[list[str] | None, typer.Option(metavar="PATH", rich_help_panel=OWN,
                                                       help="Pairs of answers, or single ones with a verdict, to align "
                                                            "with.")]
Problems = Annotated[list[str] | None, typer.Option(metavar="PATH", rich_help_panel=OWN,
                                                    help="Questions with the answers that count as right.")]
Data = Annotated[list[str] | None, typer.Option("--data", metavar="PATH", rich_help_panel=OWN,
                                                help="Files of any of these kinds: what they hold is recognised.")]
Base = Annotated[str, typer.Option("--base", metavar="SOURCE", rich_help_panel=OWN,
                                   help="Start from a model that is trained already: a directory, a GGUF file, a model "
                                        "on the hub (org/name) or models:/NAME@ALIAS.")]
Also = Annotated[bool, typer.Option("--also", rich_help_panel=OWN,
                                    help="Keep the preset's own data beside yours, and its tasks.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def opened_workspace() -> Workspace:
    """The workspace, with the environment set for Prefect and MLflow; call it before importing either."""
    from flows.services.environment import configure

    workspace = Workspace.current()
    configure(workspace)
    return workspace


def opened_registry() -> Workspace:
    """The workspace, with every alias where the releases in service say: a move may have been cut short by a crash."""
    workspace = opened_workspace()
    from tasks.registry.promotion import repair_all

    repair_all()
    return workspace


def model_directory(model: str) -> Path:
    """The directory of models:/NAME@ALIAS or models:/NAME/VERSION, or that of a path. Raises InputError where there is
    none."""
    if not model.startswith("models:/"):
        directory = Path(model).expanduser()
        if not directory.is_dir():
            raise InputError(f"{model}: neither a model directory nor models:/NAME@ALIAS")
        return directory
    opened_registry()
    from tasks.registry.files import resolve

    return resolve(model)


def relative(path: str) -> str:
    if not path:
        return "not here"
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return path
