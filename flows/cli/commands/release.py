"""`genai releases`, `promote`, `rollback`, `reproduce`: which release serves, and where a model comes from."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.commands.models import Model
from flows.cli.commands.shared import AsJson, console, opened_registry, opened_workspace
from genai_core.errors import InputError

OfFamily = Annotated[str, typer.Option("--family", metavar="NAME", help="Releases of this family instead of the "
                                                                        "language model's.")]


def releases(family: OfFamily = "", as_json: AsJson = False) -> None:
    """List the releases, newest last: which one serves, which one before it, what each holds and was compared with."""
    opened_registry()
    from tasks.registry import releases as registry
    from tasks.tables import shown
    from tasks.tracking import client as tracking

    rows = registry.releases(family)
    serving = before = None
    with tracking.told("which one is in service is not known"):
        serving = registry.in_service(family)
        before = registry.with_alias(family, "previous")
    states = {release.version: state for release, state in ((before, "previous"), (serving, "in service")) if release}
    if as_json:
        described = [{**row.to_dict(), "state": states.get(row.version, "")} for row in rows]
        return typer.echo(json.dumps(described, indent=1))
    if not rows:
        return console.print("there is no release yet; a run whose gates all pass makes the first one")
    table = Table("release", "state", "made", "versions", "figures", "compared with", "gates")
    for row in rows:
        versions = "\n".join(f"{stage} {version}" for stage, version in row.versions.items())
        figures = "\n".join(f"{name} {shown(value)}" for name, value in row.figures.items())
        table.add_row(row.name, states.get(row.version, ""), row.made[:16].replace("T", " "), versions, figures,
                      row.compared_with or "none: the first", row.gates)
    console.print(table)


def promote(release: Annotated[str, typer.Argument(help="A release, such as 2026.11.24, or the model of a run that is "
                                                        "to become one, such as models:/genai-quantize/7.")],
            family: OfFamily = "",
            override: Annotated[str, typer.Option(metavar="REASON", help="Promote although the gates did not pass; the "
                                                                         "reason is recorded.")] = "") -> None:
    """Put a release in service, or all models of a run as a new one. Refused unless it passed its gates; recorded."""
    opened_registry()
    from tasks.registry.promotion import promote as put_in_service

    move = put_in_service(release, override, family)
    if move is None:
        return console.print(f"{release} is in service already", highlight=False)
    console.print(f"release {move.name} is in service ({move.reason})", highlight=False)


def rollback(name: Annotated[str, typer.Argument(metavar="[NAME]", help="The release to go back to; by default the one "
                                                                       "before the one in service.")] = "",
             family: OfFamily = "") -> None:
    """Put an earlier release in service again."""
    opened_registry()
    from tasks.registry.promotion import rollback as go_back

    console.print(f"release {go_back(name, family).name} is in service again", highlight=False)


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
