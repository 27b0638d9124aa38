"""`genai chat`, `genai models`, `genai lineage`, `genai compare`, `genai export`: look at models, hand them on."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.commands.shared import AsJson, console, model_directory, opened_registry, relative

Model = Annotated[str, typer.Argument(help="models:/NAME/VERSION or models:/NAME@ALIAS, for example "
                                           "models:/genai-quantize@champion.")]


def chat(model: Annotated[str, typer.Argument(help="A model directory, or models:/NAME@ALIAS.")] =
         "models:/genai-quantize@champion",
         question: Annotated[str | None, typer.Option(help="Ask this and leave.")] = None,
         temperature: Annotated[float, typer.Option(min=0.0, help="0 always takes the likeliest token.")] = 0.0,
         tokens: Annotated[int, typer.Option(min=1, help="Longest answer.")] = 100,
         seed: Annotated[int | None, typer.Option(help="Repeatable sampling.")] = None) -> None:
    """Talk to a model; answers appear as they are made. An empty line or Ctrl-D ends the conversation."""
    directory = model_directory(model)
    import torch

    from genai_core.inference.sampling import Sampling
    from genai_core.models.kinds import open_model

    opened = open_model(directory, torch.device("cpu"))
    messages: list[dict[str, str]] = []
    while True:
        asked = question if question is not None else _ask()
        if not asked:
            return
        messages.append({"role": "user", "content": asked})
        answer = ""
        for piece in opened.chat(messages, tokens, Sampling(temperature), seed):
            answer += piece
            sys.stdout.write(piece)
            sys.stdout.flush()
        sys.stdout.write("\n")
        if question is not None:
            return
        messages.append({"role": "assistant", "content": answer})


def models(as_json: AsJson = False,
           history: Annotated[bool, typer.Option(help="The moves of the aliases instead: who, when, why.")] = False
           ) -> None:
    """List the registry: stage, version, aliases, parent, key figures, local path."""
    opened_registry()
    from tasks.registry.versions import list_versions
    from tasks.tables import shown

    if history:
        return _history(as_json)
    rows = list_versions()
    if as_json:
        return typer.echo(json.dumps(rows, indent=1))
    if not rows:
        return console.print("no model is registered yet; `genai run` makes the first ones")
    table = Table("stage", "version", "aliases", "parent", "figures", "gates", "path")
    for row in rows:
        figures = "\n".join(f"{name} {shown(value)}" for name, value in row["figures"].items())
        table.add_row(row["stage"], str(row["version"]), ", ".join(row["aliases"]),
                      row["parent"].removeprefix("models:/"), figures, row["gates"], relative(row["path"]))
    console.print(table)


def lineage(model: Model = "models:/genai-quantize@champion", as_json: AsJson = False,
            mermaid: Annotated[bool, typer.Option(help="Print a Mermaid diagram for documents.")] = False) -> None:
    """Show everything that a model comes from, back to the sources, and the commands that make it again."""
    opened_registry()
    from tasks.registry.lineage import lineage as read_lineage
    from tasks.views.lineage_views import as_mermaid, as_tree, commands

    root = read_lineage(model)
    if as_json:
        typer.echo(json.dumps({**root.to_dict(), "commands": commands(root)}, indent=1))
    elif mermaid:
        typer.echo(as_mermaid(root))
    else:
        console.print(as_tree(root))
        console.print("\nto make it again:", *commands(root), sep="\n  ", highlight=False, markup=False, soft_wrap=True)


def compare(model: Model, other: Annotated[str, typer.Argument(help="The model to compare it with.")],
            as_json: AsJson = False,
            page: Annotated[Path | None, typer.Option(help="Write the comparison as an HTML page with charts.")] = None
            ) -> None:
    """Compare two models: figures with their difference and its noise, and samples side by side."""
    opened_registry()
    from tasks.tables import shown
    from tasks.views.comparison import compare as compare_models

    result = compare_models(model, other)
    if as_json:
        return typer.echo(json.dumps(result.to_dict(), indent=1))
    table = Table("figure", result.first, result.second, "difference", "95% interval", "verdict")
    for line in result.lines:
        interval = "" if line.low is None else f"{shown(line.low)} to {shown(line.high)}"
        table.add_row(line.figure, shown(line.first), shown(line.second), shown(line.difference), interval,
                      line.verdict)
    console.print(table)
    for note in result.notes:
        console.print(note, highlight=False)
    for sample in result.samples:
        console.print(f"\n[bold]{sample['task']}[/]", highlight=False)
        for name in ("asked", "expected", "first", "second"):
            console.print(f"  {name}: {' '.join(sample[name].split())[:300]}", highlight=False, markup=False)
    if page:
        from tasks.views.comparison_page import write_page

        console.print(f"page: {write_page(result, page)}", highlight=False, soft_wrap=True)


def export(model: Annotated[str, typer.Argument(help="models:/NAME@ALIAS or a model directory.")] =
           "models:/genai-quantize@champion",
           to: Annotated[Path, typer.Option(metavar="DIR", help="A new folder for it.")] = Path("exported"),
           form: Annotated[str, typer.Option("--format", help="huggingface: what transformers and most trainers read. "
                                             "gguf: for llama.cpp and Ollama. portable: a parameter file, run.py and "
                                             "run.c. compressed-tensors: eight bits for vLLM and transformers. onnx: "
                                             "encoders.")] = "gguf",
           k_quant: Annotated[str, typer.Option("--type", metavar="K_QUANT", help="Of gguf: Q4_K_M or another K-quant, "
                                                "by llama.cpp's own llama-quantize, of a full-precision model.")] = ""
           ) -> None:
    """Write a model for other programs, with a card: data, licences, figures, parents, cost, how to make it again.

    A release has its eight-bit format; a full-precision one of the same release is models:/genai-rlhf@champion, the
    four-bit one the folder int4/ beside the other.
    """
    directory = model_directory(model)
    from genai_core.export.handover import export as write
    from genai_core.models.opened import served
    from tasks.views.handover_card import card_of_directory, handover_card

    inner = served(directory)
    write(inner, to, form, handover_card(model) if model.startswith("models:/") else card_of_directory(inner),
          k_quant)
    size = sum(path.stat().st_size for path in to.iterdir())
    console.print(f"{to}: {', '.join(sorted(path.name for path in to.iterdir()))}, {size / 1e6:.1f} MB; README.md says "
                  "how it is used", highlight=False, soft_wrap=True)


def _history(as_json: bool) -> None:
    from dataclasses import asdict

    from tasks.catalog import FAMILIES, model_stages
    from tasks.registry.moves import history
    from tasks.registry.releases import release_stage

    moves = [move for stage in (*map(release_stage, ("", *FAMILIES)), *model_stages()) for move in history(stage)]
    if as_json:
        return typer.echo(json.dumps([asdict(move) for move in moves], indent=1))
    table = Table("when", "who", "of", "from", "to", "name", "reason")
    for move in sorted(moves, key=lambda move: move.when):
        table.add_row(move.when[:19], move.who, move.stage, move.before, move.after, move.name, move.reason)
    console.print(table)


def _ask() -> str:
    try:
        return console.input("[bold cyan]you[/] › ").strip()
    except EOFError:
        return ""
