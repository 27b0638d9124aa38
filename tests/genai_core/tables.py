"""Rows of the cleaned tables, as short as a test can say them."""

from collections.abc import Sequence
from itertools import count
from pathlib import Path
from typing import Any

from genai_core.data.chat import Chat
from genai_core.data.shards.tables import SCHEMAS, Rows, write_table

_numbers = count()


def row(source: str, split: str, **columns: Any) -> dict[str, Any]:
    return {"id": f"{source}/{next(_numbers):07d}", "source": source, "split": split, "licence": "x", **columns}


def document(text: str, label: str | None = None, source: str = "mine", split: str = "train") -> dict[str, Any]:
    return row(source, split, text=text, label=label, raw_words=None)


def turns(*contents: str) -> Chat:
    """A conversation in which the user begins."""
    return [{"role": ("user", "assistant")[number % 2], "content": content} for number, content in enumerate(contents)]


def chat(*contents: str, source: str = "mine", split: str = "train") -> dict[str, Any]:
    return row(source, split, messages=turns(*contents))


def preference(asked: str, chosen: str, rejected: str, source: str = "mine", split: str = "train") -> dict[str, Any]:
    def answer(content: str) -> Chat:
        return [{"role": "assistant", "content": content}]

    return row(source, split, prompt=turns(asked), chosen=answer(chosen), rejected=answer(rejected))


def rating(subject: str | Chat, value: float, source: str = "mine", split: str = "train") -> dict[str, Any]:
    return row(source, split, text=subject if isinstance(subject, str) else None,
               messages=None if isinstance(subject, str) else subject, rating=value, raters=1)


def problem(prompt: str, *answers: str, choices: Sequence[str] | None = None, source: str = "mine",
            split: str = "train") -> dict[str, Any]:
    return row(source, split, prompt=prompt, answers=list(answers), choices=choices)


def pair(source_text: str, target_text: str, source: str = "mine", split: str = "train") -> dict[str, Any]:
    return row(source, split, source_text=source_text, target_text=target_text)


def write_tables(directory: Path, **tables: Rows) -> Path:
    """Every table in `directory`, those that are not given empty."""
    for name in SCHEMAS:
        write_table(tables.get(name, []), name, directory)
    return directory
