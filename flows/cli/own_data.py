"""The options by which a run takes a user's own data, as overrides of a preset: YAML can ask for the same run."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from genai_core.config.own_data import ALL_BUT_TEXT, REPLACE
from genai_core.errors import InputError
from genai_core.stages.collect import recognise_content
from tasks.store.workspace import Workspace

LICENCE = "own data"
TEXT = ("documents", "labelled")


CONTENTS = {"text": "documents", "chats": "chats", "preferences": "preferences", "problems": "problems", "data": "auto"}
"""Option to the kind of content of its paths; `auto` is recognised."""


def own_data(given: dict[str, list[str] | None], also: bool, taken: Collection[str] = ()) -> dict[str, Any]:
    """Overrides for the paths that a user gives, by option; `taken` are names that the preset has given.

    They replace the preset's sources unless `also`; where none of them is text, the preset's text stays, since a chat
    model learns the language from text first. Raises InputError for a path that is not there.
    """
    sources: dict[str, dict[str, Any]] = {}
    for option, paths in given.items():
        content = CONTENTS[option]
        for path in paths or ():
            source = {"kind": "files", "paths": [_absolute(path)], "content": content, "licence": LICENCE}
            name = _free_name(path, content, {*sources, *taken})
            if content == "preferences" and _content(name, {**source, "content": "auto"}) == "ratings":
                source["content"] = "ratings"      # single answers with a verdict
            sources[name] = source
    if not sources:
        if also:
            raise InputError("--also: keeps the preset's data beside your own; give some, for example --text book.txt")
        return {}
    overrides: dict[str, Any] = {f"collect.sources.{name}": source for name, source in sources.items()}
    if not also:
        has_text = any(_content(name, source) in TEXT for name, source in sources.items())
        overrides[f"collect.{REPLACE}"] = True if has_text else ALL_BUT_TEXT
    return overrides


def _content(name: str, source: dict[str, Any]) -> str:
    if source["content"] != "auto":
        return str(source["content"])
    return recognise_content(name, source, Workspace.current().root)[0]


def _absolute(path: str) -> str:
    """Where the user is counts, not where the workspace is; an address stays as it is."""
    if "://" in path:
        return path
    return str(Path(path).expanduser().absolute())


def _free_name(path: str, content: str, taken: Collection[str]) -> str:
    """A name for the source after its file, since figures and tasks will be called by it."""
    stem = re.sub(r"[^a-z0-9]+", "-", Path(path).name.split(".")[0].lower()).strip("-")
    name = stem or content
    number = 1
    while name in taken:
        number += 1
        name = f"{stem or content}-{number}"
    return name
