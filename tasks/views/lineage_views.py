"""The lineage of a model as a tree for the terminal, as a Mermaid diagram for documents, and as commands."""

from rich.markup import escape
from rich.text import Text
from rich.tree import Tree

from tasks.registry.lineage import Node
from tasks.tables import shown


def as_tree(root: Node) -> Tree:
    """The model first, what it was made from below it; what appears a second time is only named."""
    tree = Tree(_label(root))
    _grow(tree, root, {id(root)})
    return tree


def _grow(tree: Tree, node: Node, seen: set[int]) -> None:
    for source in node.sources:
        origin = f" ({source['from']})" if source["from"] else ""
        tree.add(f"[dim]source[/] {escape(source['name'])}: {escape(source['licence'])}{escape(origin)}")
    for parent in node.inputs:
        if id(parent) in seen:
            tree.add(f"[dim]{parent.stage} {parent.key or parent.digest[:16]}, see above[/]")
            continue
        seen.add(id(parent))
        _grow(tree.add(_label(parent)), parent, seen)


def _label(node: Node) -> Text:
    if not node.key:
        return Text(f"{node.stage} digest {node.digest[:16]}: not in this workspace; `dvc pull` may fetch it", "yellow")
    version = f" [bold]{node.version}[/]" if node.version else ""
    aliases = f" [green]@{', @'.join(node.aliases)}[/]" if node.aliases else ""
    lines = [f"[cyan]{node.stage}[/]{version}{aliases}", f"  [dim]key {node.key}, digest {node.digest[:16]}[/]"]
    if node.figures:
        lines.append("  " + escape(", ".join(f"{name} {shown(value)}" for name, value in node.figures.items())))
    if node.made:
        lines.append(f"  [dim]{node.made} on {escape(node.host)}, commit {node.commit[:12]}, "
                     f"MLflow run {node.mlflow_run_id[:12]}, flow run {node.flow_run_id[:13]}[/]")
        lines.append(f"  [dim]cost {node.cost}[/]")
    if node.dvc_md5:
        lines.append(f"  [dim]data.dvc {node.dvc_md5}[/]")
    return Text.from_markup("\n".join(lines), overflow="fold")


def as_mermaid(root: Node) -> str:
    """A Mermaid flowchart, sources to the left."""
    nodes = root.all_nodes()
    names = {id(node): f"n{number}" for number, node in enumerate(nodes)}
    lines = ["flowchart LR"]
    for node in nodes:
        title = node.version or node.stage
        lines.append(f'    {names[id(node)]}["{title}<br/>{node.key or node.digest[:16]}"]')
        for number, source in enumerate(node.sources):
            lines.append(f'    s{number}(["{_plain(source["name"])}<br/>{_plain(source["licence"])}"]) --> '
                         f"{names[id(node)]}")
        lines += [f"    {names[id(parent)]} --> {names[id(node)]}" for parent in node.inputs]
    return "\n".join(lines)


def commands(root: Node) -> list[str]:
    """What makes the model again, from a clone of the repository."""
    commit = root.commit.removesuffix("-dirty")
    dirty = "   # the tree had changes that no commit holds" if root.commit.endswith("-dirty") else ""
    run = root.command or "genai run"
    until = "" if "--until" in run or "--only" in run else f" --until {root.stage}"
    return [f"git checkout {commit}{dirty}", "dvc pull", f"{run}{until}"]


def _plain(text: str) -> str:
    """Text inside a quoted label of Mermaid."""
    return "".join(character for character in text if character.isalnum() or character in " .,-_/")
