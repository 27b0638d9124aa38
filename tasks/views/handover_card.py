"""The card that a model leaves with: its data and their licences, figures with intervals, parents, cost, and how it is
made again. Unlike the card in the model's directory, it tells the whole chain and is read where no registry is."""

from pathlib import Path

from genai_core.errors import InputError
from genai_core.evaluation.intervals import interval_of
from tasks.catalog import model_stages
from tasks.registry.lineage import Node, lineage
from tasks.store.artifacts import CARD
from tasks.tables import markdown_table, shown
from tasks.views.comparison import evaluated
from tasks.views.lineage_views import commands

LIMITS = ("It makes things up and repeats the mistakes and biases of its data. Whoever hands it on sees to what the "
          "licences of the data ask, such as naming their authors.")


def handover_card(uri: str) -> str:
    """The card of a registered model, in Markdown. Raises InputError when the registry does not have it."""
    root = lineage(uri)
    nodes = root.all_nodes()
    sources = {source["name"]: source for node in nodes for source in node.sources}
    lines = [f"# {root.version.replace('/', ' version ') or root.stage}", "", model_stages()[root.stage].use, "",
             "## Data", "",
             *markdown_table(["source", "licence", "from"],
                             [[name, each["licence"], each["from"]] for name, each in sources.items()]), "",
             "## Figures", "", *_figures(uri, root), "", "## Limits", "", LIMITS, "", "## Made from", "",
             *markdown_table(["stage", "key", "digest", "version", "made", "cost"], [
                 [node.stage, node.key, node.digest[:16], node.version, node.made[:19], str(node.cost)]
                 for node in nodes]), "",
             "## Made again", "", "In a clone of the project's repository:", "",
             *(f"    {command}" for command in commands(root))]
    if root.environment:
        lines += ["", "Made with " + ", ".join(f"{name} {value}" for name, value in root.environment.items()) + "."]
    return "\n".join(lines) + "\n"


def card_of_directory(directory: Path) -> str:
    """The card that lies in a model directory or above it, else a line that says that none does."""
    for folder in (directory, directory.parent):
        if (folder / CARD).is_file():
            return (folder / CARD).read_text(encoding="utf-8")
    return f"# {directory.name}\n\nNothing is known of how this model was made: it was exported from a directory."


def _figures(uri: str, root: Node) -> list[str]:
    """Figures of the report that evaluated it, with 95 % intervals; its own where none did."""
    try:
        report = evaluated(uri)
    except InputError:
        return markdown_table(["figure", "value"], [[name, shown(value)] for name, value in root.figures.items()])
    rows = []
    for name, value in report.figures.items():
        interval = ""
        if name in report.outcomes:
            ends = interval_of(name, report.outcomes[name], value)
            interval = f"{shown(ends[0])} to {shown(ends[1])}" if ends else ""
        rows.append([name, shown(value), interval])
    return markdown_table(["figure on held-out data", "value", "95 % interval"], rows)
