"""The page of all families, from the newest run of each: tables, gates, pictures."""

import json
import shutil
from pathlib import Path

from genai_core.families.report import DATA
from tasks.store import records
from tasks.tables import markdown_table, shown
from tasks.views.family_table import FamilyRow


def write_page(rows: list[FamilyRow], path: Path) -> Path:
    """Write the Markdown page to `path`, and its pictures into the folder of the same name beside it."""
    folder = path.with_suffix("")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    host = records.host()
    lines = ["# The generative families", "",
             "Written by `genai families --page` from the newest run of each family "
             f"({host['cores']} cores; figures of held-out data). Each family has a page of its own.", ""]
    for row in rows:
        lines += [f"## {row.title}", "", f"`genai run --family {row.name}`, made {row.made[:10]} from commit "
                  f"`{row.commit[:12]}`, {row.cost} in all. [What it is]({row.name}.md).", ""]
        names = list(dict.fromkeys(name for line in row.lines for name in line.figures))
        lines += markdown_table(["model", *names, "seconds of training"],
                                [[line.column, *(shown(line.figures.get(name, "")) for name in names),
                                  f"{line.seconds:.0f}" if line.seconds else ""] for line in row.lines])
        lines.append("")
        lines += [f"- {'reached' if gate['passed'] else '**not reached**'}: {gate['gate']}: {gate['figure']} is "
                  f"{shown(gate['value'])}, wanted {gate['comparison']} {shown(gate['bound'])}" for gate in row.gates]
        lines.append("")
        captions = json.loads((row.evaluation / "pictures.json").read_text(encoding="utf-8"))
        for file, caption in captions.items():
            if file.startswith(DATA):
                continue
            shutil.copyfile(row.evaluation / file, folder / f"{row.name}-{file}")
            lines += [f"![{caption}]({folder.name}/{row.name}-{file})", "", f"*{caption}*", ""]
    path.write_text("\n".join(lines), encoding="utf-8")
    return path.resolve()
