"""`genai samples`: every answer of a model to a task, right or wrong."""

import json
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from flows.cli.commands.shared import AsJson, console, opened_registry

LONGEST = 400
"""Characters of a text that the table shows; --json has all."""


def samples(model: Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS.")],
            task: Annotated[str, typer.Argument(help="A task of the evaluation, such as sentiment.")],
            against: Annotated[str, typer.Option(metavar="MODEL", help="Another model, side by side.",
                                                 show_default=False)] = "",
            wrong: Annotated[bool, typer.Option("--wrong", help="Only what this model, or the other one, got wrong.")]
            = False,
            count: Annotated[int, typer.Option(min=1, help="Most answers that are shown; --json gives all.")] = 20,
            as_json: AsJson = False) -> None:
    """List the questions of a task, what was expected, what the model answered, and whether that is right.

    Example: `genai samples models:/genai-rlhf@candidate sentiment --wrong --against models:/genai-instruct@candidate`.
    """
    opened_registry()
    from tasks.views.samples import samples as read_samples

    rows = read_samples(model, task, against, wrong)
    if as_json:
        return typer.echo(json.dumps([row.to_dict() for row in rows], indent=1, ensure_ascii=False))
    if not rows:
        return console.print(f"{task}: no answer is wrong", highlight=False)
    table = Table("asked", "expected", model.removeprefix("models:/"), "")
    for heading in (against.removeprefix("models:/"), "") if against else ():
        table.add_column(heading)
    for row in rows[:count]:
        cells = [_text(row.asked), _text(row.expected), _text(row.answered), _verdict(row.right, row.values)]
        cells += [_text(row.other_answered), _verdict(row.other_right, row.other_values)] if against else []
        table.add_row(*cells, end_section=True)
    console.print(table)
    console.print(f"{min(count, len(rows)):,} of {len(rows):,}", highlight=False)


def _text(text: str) -> Text:
    line = " ".join(text.split())
    return Text(line if len(line) <= LONGEST else f"{line[:LONGEST]} …")


def _verdict(right: bool | None, values: dict[str, float]) -> Text:
    if right is not None:
        return Text("right", "green") if right else Text("wrong", "red")
    return Text("\n".join(f"{name} {value:.4g}" for name, value in values.items()))
