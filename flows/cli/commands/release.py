"""`genai promote`, `genai rollback`, `genai reproduce`: decide which model serves, and prove where it comes from."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.commands.models import Model
from flows.cli.commands.shared import console, opened_workspace
from genai_core.errors import InputError
from tasks.catalog import model_stages


def promote(model: Model, to: Annotated[str, typer.Option(help="The alias to give it.")] = "champion",
            override: Annotated[str, typer.Option(metavar="REASON", help="Promote although the gates did not pass; the "
                                                                         "reason is recorded.")] = "") -> None:
    """Put a version in service. Refused unless it passed its gates; recorded with who, when, from, to and figures."""
    opened_workspace()
    from tasks.registry.releases import promote as move_alias

    move = move_alias(model, to, override)
    if move is None:
        return console.print(f"{model} is {to} already", highlight=False)
    console.print(f"{move.stage}: {move.alias} moved from version {move.before or 'none'} to {move.after} "
                  f"({move.reason})", highlight=False)


def rollback(stage: Annotated[str, typer.Argument(help="The stage whose champion goes back to `previous`.")]) -> None:
    """Give a stage's `champion` back to the version that served before it."""
    if stage not in model_stages():
        raise InputError(f"unknown stage {stage!r}; those that make models are {', '.join(model_stages())}")
    opened_workspace()
    from tasks.registry.releases import rollback as move_back

    move = move_back(stage)
    console.print(f"{stage}: champion is version {move.after} again; {move.before} is now previous", highlight=False)


def reproduce(model: Model,
              keep: Annotated[Path | None, typer.Option(help="Keep the worktree, at this path.")] = None,
              pull: Annotated[bool, typer.Option(help="Take the data from the DVC remote where it has it.")] = True
              ) -> None:
    """Make a model again from its commit, data and parameters in a clean worktree, and compare the digests."""
    workspace = opened_workspace()
    from flows.cli.reproduce import reproduce as make_again

    lines = make_again(model, workspace, keep, pull)
    table = Table("stage", "key", "digest then", "digest now", "agrees")
    for line in lines:
        table.add_row(line.stage, line.key, line.before[:16], line.after[:16], "yes" if line.agrees else "[red]NO")
    console.print(table)
    different = [line.stage for line in lines if not line.agrees]
    if different:
        raise InputError(f"{model} was not reproduced: {', '.join(different)} came out with other bytes")
    console.print(f"{model} is reproduced: every digest agrees", highlight=False)
