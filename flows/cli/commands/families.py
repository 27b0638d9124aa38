"""`genai families`, `genai generate`: the other generative families."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.commands.shared import AsJson, console, opened_workspace
from genai_core.errors import InputError
from tasks.catalog import FAMILIES

MODEL_HELP = "models:/NAME@ALIAS, models:/NAME/VERSION, a model directory, or a family: its newest model."


def families(as_json: AsJson = False,
             page: Annotated[Path | None, typer.Option(help="Write the table as a Markdown page, its pictures into the "
                                                            "folder of the same name beside it.")] = None) -> None:
    """List the generative families: the figures of their newest run, the baselines', and what it cost."""
    workspace = opened_workspace()
    from tasks.tables import shown
    from tasks.views.family_table import family_table

    table = family_table(workspace)
    if as_json:
        return typer.echo(json.dumps([row.to_dict() for row in table], indent=1))
    if page:
        from tasks.views.family_page import write_page

        return console.print(f"page: {write_page(table, page)}", highlight=False, soft_wrap=True)
    drawn = Table("family", "model", "figures", "seconds", "version")
    for row in table:
        for number, line in enumerate(row.lines):
            figures = ", ".join(f"{name} {shown(value)}" for name, value in line.figures.items())
            drawn.add_row(row.name if number == 0 else "", line.column, figures,
                          f"{line.seconds:.0f}" if line.seconds else "", line.version,
                          end_section=number == len(row.lines) - 1)
    if table:
        console.print(drawn)
    missing = [name for name in FAMILIES if name not in {row.name for row in table}]
    if missing:
        console.print(f"not run yet: {', '.join(missing)} (genai run --family NAME, or make families)", highlight=False)


def generate(subject: Annotated[str, typer.Argument(metavar="MODEL", help=MODEL_HELP, show_default=False)] = "",
             model: Annotated[str, typer.Option(help="The same, as an option.", show_default=False)] = "",
             prompt: Annotated[str, typer.Option(help="Text for a language model to continue, or for a model of pairs "
                                                      "to answer.")] = "",
             label: Annotated[int | None, typer.Option("--class", help="The digit to draw; without it, each in turn.")]
             = None,
             count: Annotated[int, typer.Option(min=1, max=1000, help="Images to draw.")] = 20,
             tokens: Annotated[int, typer.Option(min=1, help="Longest text.")] = 300,
             temperature: Annotated[float, typer.Option(min=0.0, help="Of text; 0 always takes the likeliest token.")]
             = 0.8,
             seed: Annotated[int, typer.Option(help="The same seed gives the same result.")] = 0,
             out: Annotated[Path, typer.Option(help="Where images go.")] = Path("generated.png")) -> None:
    """Make text or images with a model of any family.

    Examples: `genai generate models:/genai-lstm@candidate --prompt "KING. "`, `genai generate vae --out digits.png`,
    `genai generate diffusion --class 7`.
    """
    if bool(subject) == bool(model):
        raise InputError(f"generate needs one model: {MODEL_HELP}")
    model = subject or model
    directory = _directory(model)
    from genai_core.hardware import choose_device
    from genai_core.models.kinds import open_model

    opened = open_model(directory, choose_device("auto"))
    if opened.produces == "images":
        from genai_core.pictures import save_grid

        images = opened.make_images(count, label, seed)
        out.parent.mkdir(parents=True, exist_ok=True)
        save_grid(images, out, columns=min(10, count))
        return console.print(f"{count} images: {out.resolve()}", highlight=False, soft_wrap=True)
    if label is not None:
        raise InputError(f"--class {label}: {model} makes text; give it a --prompt")
    from genai_core.inference.sampling import Sampling

    for piece in opened.complete(prompt, tokens, Sampling(temperature), seed):
        sys.stdout.write(piece)
        sys.stdout.flush()
    sys.stdout.write("\n")


def _directory(model: str) -> Path:
    if model in FAMILIES:
        opened_workspace()
        from tasks.registry.files import resolve
        from tasks.registry.versions import model_name

        return resolve(f"models:/{model_name(FAMILIES[model].shown_model)}@candidate")
    if not model.startswith("models:/"):
        if not Path(model).is_dir():
            raise InputError(f"{model}: neither a family ({', '.join(FAMILIES)}), nor a model directory, nor "
                             "models:/NAME@ALIAS")
        return Path(model)
    opened_workspace()
    from tasks.registry.files import resolve

    return resolve(model)
