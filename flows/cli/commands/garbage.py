"""`genai gc`: make room."""

from typing import Annotated

import typer
from rich.table import Table

from flows.cli.commands.shared import console, opened_workspace, relative


def gc(yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
       days: Annotated[int, typer.Option(min=0, help="What a run used within so many days stays.")] = 14) -> None:
    """List, then remove, artifacts and checkpoints that nothing refers to.

    What a registered version, a data.dvc in the history of git, or a run of the last days refers to is never touched.
    """
    workspace = opened_workspace()
    from tasks.execution.garbage import find_garbage, remove

    found = find_garbage(workspace, days)
    if not found:
        return console.print("nothing to remove")
    table = Table("path", "MiB", "why")
    for entry in found:
        table.add_row(relative(str(entry.path)), f"{entry.bytes / 2**20:,.1f}", entry.why)
    console.print(table)
    console.print(f"{sum(entry.bytes for entry in found) / 2**20:,.1f} MiB in all", highlight=False)
    if yes or typer.confirm("remove them?"):
        for entry in found:
            remove(workspace, entry)
        console.print("removed")
