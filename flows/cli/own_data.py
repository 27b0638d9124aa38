"""The options by which a run takes a user's own data, as overrides of a preset: YAML can ask for the same run."""

import glob
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from rich.console import Console

from genai_core.config.addresses import is_in_mlflow, is_remote
from genai_core.config.own_data import ALL_BUT_TEXT, REPLACE
from genai_core.errors import InputError
from tasks.config import kinds_in, recognise

LICENCE = "own data"
TEXT = ("documents", "labelled")
console = Console(stderr=True)


CONTENTS = {"text": "documents", "chats": "chats", "preferences": "preferences", "problems": "problems", "data": "auto"}
"""Option to the kind of content of its paths; `auto` is recognised."""


def own_data(given: dict[str, list[str] | None], also: bool, taken: Collection[str] = ()) -> dict[str, Any]:
    """Overrides for the paths that a user gives, by option; `taken` are names that the preset has given.

    They replace the preset's sources unless `also`; where none of them is text, the preset's text stays, since a chat
    model learns the language from text first. A path whose files are of several kinds becomes a source for each kind.
    Raises InputError for a path that is not there.
    """
    sources: dict[str, dict[str, Any]] = {}
    for option, paths in given.items():
        content = CONTENTS[option]
        for path in paths or ():
            source = {"kind": "files", "paths": [_absolute(path)], "content": content, "licence": LICENCE}
            name = _free_name(path, content, {*sources, *taken})
            if content == "preferences" and _content(name, {**source, "content": "auto"}) == "ratings":
                source["content"] = "ratings"      # single answers with a verdict
            for part in _parts(name, source):
                sources[_free_name(path, content, {*sources, *taken})] = part
    if not sources:
        if also:
            raise InputError("--also: keeps the preset's data beside your own; give some, for example --text book.txt")
        return {}
    overrides: dict[str, Any] = {f"collect.sources.{name}": source for name, source in sources.items()}
    if not also:
        kinds = [_content(name, source) for name, source in sources.items()]
        has_text = any(kind in TEXT for kind in kinds)
        if set(kinds) == {"ratings"} and not any(recognise(*source)[1] for source in sources.items()):
            console.print(f"{', '.join(sources)}: ratings of texts alone train nothing, since a reward model is made "
                          "from an instruct model and there is nothing to fine-tune one on; add --chats, or keep the "
                          "preset's data with --also", highlight=False, markup=False, soft_wrap=True)
        overrides[f"collect.{REPLACE}"] = True if has_text else ALL_BUT_TEXT
    return overrides


def beside_named(overrides: dict[str, Any], rewards: Collection[str], prompts: Collection[str]) -> dict[str, Any]:
    """Overrides by which a preset that names what its reward model and RLHF learn from takes what was judged among
    `overrides` beside it: `rewards` and `prompts` are its `reward.sources` and `rlhf.tasks`."""
    sources = {name.removeprefix("collect.sources."): source for name, source in overrides.items()
               if name.startswith("collect.sources.")}
    judged = [name for name, source in sources.items() if _content(name, source) in ("preferences", "ratings")]
    asked = [name for name in judged if _content(name, sources[name]) == "preferences"
             or recognise(name, sources[name])[1]]
    return ({"reward.sources": [*rewards, *judged]} if rewards and judged else {}) | (
        {"rlhf.tasks": [*prompts, *asked]} if prompts and asked else {})


def _parts(name: str, source: dict[str, Any]) -> list[dict[str, Any]]:
    """The source itself, or one for each kind of content of its files, and of those of a saved dataset for each split.
    """
    if source["content"] != "auto" or any(map(is_in_mlflow, source["paths"])):
        return [source]
    kinds = kinds_in(name, source)
    if len(kinds) < 2:
        return [source]
    parts: dict[tuple[str, str | None], dict[str, Any]] = {}
    for kind, files in kinds.items():
        named = f"{len(files):,} files" if len(files) > 1 else "1 file"
        console.print(f"{name}: {kind} in {named}, a source of its own: {_named(files[0].path)}"
                      f"{' …' if len(files) > 1 else ''}", highlight=False, markup=False)
        for file in files:
            split = {"split": file.split} if file.split else {}
            part = parts.setdefault((str(kind), file.split),
                                    {**source, "content": kind.content, "paths": [], **split})
            part["paths"].append(file.path if is_remote(file.path) else glob.escape(file.path))
    return list(parts.values())


def _named(path: str) -> str:
    return path.rpartition("/")[2]


def _content(name: str, source: dict[str, Any]) -> str:
    return str(source["content"]) if source["content"] != "auto" else recognise(name, source)[0]


def _absolute(path: str) -> str:
    """Where the user is counts, not where the workspace is; an address stays as it is."""
    if is_in_mlflow(path) or "://" in path:
        return path
    return str(Path(path).expanduser().absolute())


def _free_name(path: str, content: str, taken: Collection[str]) -> str:
    """A name for the source after its file, since figures and tasks will be called by it."""
    called = Path(path).name.split(".")[0]
    if called.isdigit() and is_in_mlflow(path):      # the number of a version
        called = path.partition(":/")[2]
    stem = re.sub(r"[^a-z0-9]+", "-", called.lower()).strip("-")
    name = stem or content
    number = 1
    while name in taken:
        number += 1
        name = f"{stem or content}-{number}"
    return name
