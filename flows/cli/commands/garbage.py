"""`genai gc`: make room."""

from typing import Annotated

import typer
from rich.table import Table

from flows.cli.commands.shared import console, opened_workspace, relative


def gc(yes: Annotated[bool, typer.Option("--yes", help="Remove without asking.")] = False,
       days: Annotated[int, typer.Option(min=0, help="What a run used or made within so many days stays.")] = 14,
       keep: Annotated[int, typer.Option(min=0, help="So many of the newest versions of each registered model, and of "
                                                     "the newest releases, stay.")] = 5,
       shared: Annotated[bool, typer.Option("--shared", help="Also from a remote and an MLflow server that others may "
                                                             "use.")] = False) -> None:
    """List how much lies where, then remove what nothing that stays refers to.

    What is in service and what was before it, with all it comes from, a data.dvc in the history of git, and what a run
    of the last days used is never touched.
    """
    workspace = opened_workspace()
    from tasks.execution.garbage import PLACES, Policy, bytes_there, find_garbage, remove

    policy = Policy(days, keep, shared)
    found = find_garbage(workspace, policy)
    there = bytes_there(workspace)
    places = Table("place", "MiB", "MiB that may go")
    for place in PLACES:
        places.add_row(place, _mebibytes(there[place]),
                       _mebibytes(sum(entry.bytes for entry in found if entry.place == place)))
    console.print(places)
    if not found:
        return console.print("nothing to remove")
    table = Table("what", "MiB", "why")
    for entry in found:
        what = f"{len(entry.objects)} files in {relative(entry.name)}" if entry.objects else relative(entry.name)
        table.add_row(what, _mebibytes(entry.bytes), entry.why)
    console.print(table)
    if yes or typer.confirm("remove them?"):
        gone = remove(workspace, policy, found)
        freed = sum(there.values()) - sum(bytes_there(workspace).values())
        console.print(f"removed {len(gone)} of {len(found)}: {_mebibytes(freed)} MiB freed", highlight=False)


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.1f}"
