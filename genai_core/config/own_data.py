"""What follows for a preset from a user's own sources: which values of it were about its own data, and a task for each
source that has none."""

from collections.abc import Callable
from typing import Any

from genai_core.config.data import READER_CONTENTS
from genai_core.errors import InputError

REPLACE = "replace_sources"
"""Field of `collect` by which a preset leaves the sources of the one that it extends behind."""
ALL_BUT_TEXT = "all_but_text"
OWN_KINDS = ("files", "huggingface")
TAUGHT = ("labelled", "pairs", "problems", "chats", "preferences")
"""Kinds of content that a chat model is fine-tuned on and asked about."""

Recognise = Callable[[str, dict[str, Any]], tuple[str, bool]]
"""Name and fields of a source of files to the kind of content that they turn out to have, and whether its records are
conversations."""


def asked_to_replace(values: dict[str, Any]) -> bool | str:
    """What a preset, or `stage.field` overrides, say of the sources that they come on top of: True leaves all behind,
    ALL_BUT_TEXT those that bring no text. The word is taken out, since it is about presets and no part of a config.

    Raises InputError for any other word.
    """
    asked = values.pop(f"collect.{REPLACE}", False)
    collect = values.get("collect")
    asked = (collect.pop(REPLACE, False) if isinstance(collect, dict) else False) or asked
    if asked not in (True, False, ALL_BUT_TEXT):
        raise InputError(f"collect.{REPLACE}: {asked!r} is none of true, false and {ALL_BUT_TEXT}")
    return asked


def without_its_data(values: dict[str, Any], asked: bool | str) -> dict[str, Any]:
    """A preset without its sources and without what is said of them elsewhere: tasks, what the reward model and RLHF
    learn from, and gates whose bounds were measured on them."""
    if not asked:
        return values
    kept = {section: dict(fields) if isinstance(fields, dict) else fields for section, fields in values.items()}
    kept.pop("tasks", None)
    collect, promote = _mapping(kept, "collect"), _mapping(kept, "promote")
    sources = _mapping(collect, "sources")
    collect.pop("sources", None)
    if asked == ALL_BUT_TEXT:
        collect["sources"] = {name: source for name, source in sources.items() if _brings_text(source)}
    for section, names in (("reward", ("sources", "context_length")), ("rlhf", ("tasks",)), ("evaluate", ("gold",)),
                           ("pretrain", ("weights",)), ("clean", ("gates",)), ("tokenize", ("sources",))):
        for name in names:
            _mapping(kept, section).pop(name, None)
    promote["gates"] = {name: gate for name, gate in _mapping(promote, "gates").items()
                        if not isinstance(gate, dict) or str(gate.get("figure", "")).startswith("quantize/")}
    promote["pairs"] = {name: _without_a_gain(pair) for name, pair in _mapping(promote, "pairs").items()}
    return kept


def with_own_data(values: dict[str, Any], recognise: Recognise | None) -> dict[str, Any]:
    """The values with the kinds of content of own files filled in, where the user leaves them to be recognised, and
    with a task of its own for each own source that no task names."""
    if not all(isinstance(part, dict) for part in (values.get("collect", {}), values.get("tasks", {}))):
        return values      # what is wrong is said where the whole config is checked
    declared = values.get("collect", {}).get("sources", {})
    if not isinstance(declared, dict):
        return values
    sources = {name: dict(source) if isinstance(source, dict) else source for name, source in declared.items()}
    tasks = dict(values.get("tasks", {}))
    named = {str(source).partition("/")[0] for task in tasks.values() if isinstance(task, dict)
             for source in _listed(task.get("sources"))}
    for name, source in sources.items():
        if not isinstance(source, dict) or source.get("kind") not in OWN_KINDS or source.get("enabled") is False:
            continue
        conversations = False
        if source["kind"] == "files" and source.get("content", "auto") in ("auto", "ratings") and recognise:
            source["content"], conversations = recognise(name, source)
        taught = source.get("content") in TAUGHT or (source.get("content") == "ratings" and conversations)
        if taught and name not in named and name not in tasks:
            tasks[name] = {"content": source["content"], "sources": [name]}
    return {**values, "tasks": tasks, "collect": {**values.get("collect", {}), "sources": sources}}


def _without_a_gain(pair: Any) -> Any:
    """A pair that asks for no more than that the gold reward does not fall: how much it can rise, the data tells."""
    if isinstance(pair, dict) and isinstance(pair.get("gold_reward"), int | float):
        return {**pair, "gold_reward": min(pair["gold_reward"], 0.0)}
    return pair


def _brings_text(source: Any) -> bool:
    if not isinstance(source, dict):
        return False
    if source.get("kind") == "archive":
        contents = READER_CONTENTS.get(source.get("reader", ""), ())
    else:
        contents = (source.get("content", "documents"),)
    return bool({"documents", "labelled"} & set(contents))


def _mapping(values: dict[str, Any], name: str) -> dict[str, Any]:
    """A part of a config that is a mapping; an empty one where it is something else, which validation will refuse."""
    found = values.get(name)
    return found if isinstance(found, dict) else {}


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else []
