"""`genai data`: what the cleaned data is, before anything is trained on it."""

from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from flows.cli.commands.run import overrides_of_options, run
from flows.cli.commands.shared import (
    Also,
    Chats,
    Data,
    Preferences,
    Preset,
    Problems,
    Settings,
    Text,
    console,
    opened_workspace,
)
from genai_core.errors import InputError
from genai_core.roots import allow_everything
from tasks.config import load_config

Sources = Annotated[list[str] | None, typer.Argument(metavar="[SOURCE]…", help="Sources to show; all by default.")]
Page = Annotated[Path | None, typer.Option(metavar="FILE", help="Write it as an HTML page, too.")]


def data(sources: Sources = None, preset: Preset = "laptop", text: Text = None, chats: Chats = None,
         preferences: Preferences = None, problems: Problems = None, own: Data = None, also: Also = False,
         settings: Settings = None, page: Page = None) -> None:
    """Show what the data is: how much of each source, how long, in which languages, with which labels, what was removed
    and why, samples, and what to think about. It is collected and cleaned first, if it is not yet.

    Example: `genai data --text book.txt`, before `genai run --text book.txt`.
    """
    allow_everything()
    overrides = overrides_of_options(preset, "", settings, also, text=text, chats=chats, preferences=preferences,
                                     problems=problems, data=own)
    config = load_config(preset, "", overrides)
    workspace = opened_workspace()
    from genai_core.config.pipeline import PipelineConfig
    from tasks.catalog import stages_for
    from tasks.execution.plan import plan
    from tasks.store.artifacts import Store
    from tasks.views.data_card import data_card, write_page

    assert isinstance(config, PipelineConfig)
    stages = [stage for stage in stages_for(config) if stage.name in ("collect", "clean")]
    lines = plan(config, workspace, stages=stages)
    if any(line.state != "hit" for line in lines):
        run(preset=preset, text=text, chats=chats, preferences=preferences, problems=problems, data=own, also=also,
            settings=settings, until="clean")
        lines = plan(config, workspace, stages=stages)
    collected, cleaned = (Store.of(workspace).directory(line.stage, "dataset", line.key) for line in lines)
    card = data_card(config, collected, cleaned)
    known = sorted({entry.source for entry in card.entries})
    if unknown := [name for name in sources or () if name not in known]:
        raise InputError(f"there is no source {unknown[0]!r} in the cleaned data; there are {', '.join(known)}")
    shown = [entry for entry in card.entries if not sources or entry.source in sources]
    table = Table("source", "what", title="")
    for heading in ("train", "validation", "test", "characters", "half under", "removed"):
        table.add_column(heading, justify="right", no_wrap=True)
    for heading in ("lengths", "languages or labels"):
        table.add_column(heading)
    for entry in shown:
        counts = entry.labels or entry.languages
        most = sorted(counts.items(), key=lambda item: -item[1])[:3]
        table.add_row(entry.source, entry.table,
                      *(f"{entry.splits.get(split, 0):,}" for split in ("train", "validation", "test")),
                      f"{entry.characters:,}", f"{entry.median_length:,}", f"{sum(entry.removed.values()):,}",
                      entry.histogram, ", ".join(f"{name} {count:,}" for name, count in most))
    console.print(table)
    console.print(f"{card.train_characters:,} characters to train on, some {card.tokens:,} tokens", highlight=False)
    for line in card.concerns:
        console.print(f"! {line}", highlight=False, markup=False, style="yellow")
    for entry in shown if sources else ():
        for reason, count in sorted(entry.removed.items(), key=lambda item: -item[1]):
            console.print(f"removed from {entry.source}: {reason} {count:,}", highlight=False, markup=False)
        for sample in entry.samples:
            console.print(f"› {sample}", highlight=False, markup=False)
    if page:
        write_page(card, preset, page)
        console.print(f"page: {page}", highlight=False, markup=False)
