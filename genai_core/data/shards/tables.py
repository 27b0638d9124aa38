"""The Parquet tables that data stages hand on: their columns, and writing and reading them.

A table's bytes depend on its rows alone (and the version of PyArrow), so that equal data has an equal digest.
"""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from genai_core.data.shards.files import NO_SOURCE, ShardWriter, iterate_batches, shard_path, shards_of, write_shard

_COMMON = [("id", pa.string()), ("source", pa.string()), ("split", pa.string()), ("licence", pa.string())]
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

SCHEMAS = {
    # label: the class that people gave the text, where they did; raw_words: words and line ends before any cleaning
    "documents": pa.schema([*_COMMON, ("text", pa.string()), ("label", pa.string()), ("raw_words", pa.int64())]),
    # messages: from the system (first, at most one), the user and the assistant, whose answer comes last
    "chats": pa.schema([*_COMMON, ("messages", _MESSAGES)]),
    # prompt: up to the user's last message; chosen, rejected: two answers to it, the first of which people preferred
    "preferences": pa.schema([*_COMMON, ("prompt", _MESSAGES), ("chosen", _MESSAGES), ("rejected", _MESSAGES)]),
    # a text or else a conversation, and the mean of what its raters gave
    "ratings": pa.schema([*_COMMON, ("text", pa.string()), ("messages", _MESSAGES), ("rating", pa.float64()),
                          ("raters", pa.int64())]),
    # answers: every one that counts as right; choices: of multiple choice, what is to be chosen from, the right ones
    # among them. Of code, prompt is the beginning of a Python function, solution its rest, and test code that defines
    # check(function)
    "problems": pa.schema([*_COMMON, ("prompt", pa.string()), ("answers", pa.list_(pa.string())),
                           ("choices", pa.list_(pa.string())), ("solution", pa.string()), ("test", pa.string()),
                           ("entry_point", pa.string())]),
    # a text and what people made of it: a translation, a title, a summary
    "pairs": pa.schema([*_COMMON, ("source_text", pa.string()), ("target_text", pa.string())]),
    # pixels: height · width grey levels from 0 to 255, row by row
    "images": pa.schema([*_COMMON, ("pixels", pa.binary()), ("height", pa.int16()), ("width", pa.int16()),
                         ("label", pa.int8())]),
}

TEXT_COLUMNS = ("text", "prompt", "source_text", "target_text", "answers", "choices")
"""Columns that hold a text or a list of texts, in whichever table."""
TEXT_LIST_COLUMNS = ("answers", "choices")
"""Those of them that hold a list."""
MESSAGE_COLUMNS = ("messages", "prompt", "chosen", "rejected")
"""Columns that hold a list of messages, in whichever table: a preference has its prompt as such, a problem as text."""

Rows = list[dict[str, Any]]


def edit_texts(row: dict[str, Any], edit: Callable[[str], str]) -> None:
    """Put `edit` of every text of a row, each message's included, in its place."""
    for column in TEXT_COLUMNS:
        if isinstance(row.get(column), str):
            row[column] = edit(row[column])
        elif isinstance(row.get(column), list) and column in TEXT_LIST_COLUMNS:
            row[column] = [edit(text) for text in row[column]]
    for column in MESSAGE_COLUMNS:
        if isinstance(row.get(column), list):
            row[column] = [{**message, "content": edit(message["content"])} for message in row[column]]


def texts_of(row: dict[str, Any]) -> list[str]:
    """Every text of a row, in the order of `edit_texts`."""
    found: list[str] = []

    def note(text: str) -> str:
        found.append(text)
        return text

    edit_texts(dict(row), note)
    return found


def subject_of(row: dict[str, Any]) -> str:
    """The text by which a row is compared with others, and which its split follows: of a conversation what the user
    says, of a pair its source."""
    for column in ("messages", "prompt"):
        if isinstance(row.get(column), list):
            asked = [message["content"] for message in row[column] if message["role"] == "user"]
            return "\n".join(asked) if asked else str(row[column][0]["content"])
    return str(next((row[column] for column in ("text", "prompt", "source_text") if row.get(column)), ""))


def is_of(row: dict[str, Any], sources: tuple[str, ...]) -> bool:
    """Whether a row is of one of the sources, or of one of these parts of sources; every row is, where none is named.
    """
    source = row["source"]
    return not sources or any(source == name or source.startswith(f"{name}/") for name in sources)


def write_table(rows: Rows, name: str, directory: Path) -> None:
    """Write a whole table as the shards that its rows make, by the source of each."""
    writers: dict[str, ShardWriter] = {}
    for row in rows:
        source = family_of(row["source"])
        writer = writers.setdefault(source, ShardWriter(directory, name, source, SCHEMAS[name]))
        writer.add(row, sum(map(len, texts_of(row))))
    for writer in writers.values():
        writer.close()
    complete_tables(directory, [name])


def complete_tables(directory: Path, names: Iterable[str]) -> None:
    """Write an empty shard for each table that has no row: a folder without files would not travel."""
    for name in names:
        if not (directory / name).is_dir():
            write_shard(SCHEMAS[name].empty_table(), shard_path(directory, name, NO_SOURCE, 0))


def read_table(directory: Path, name: str, *, split: str | None = None, source: str | None = None) -> Rows:
    """Rows of one table, of one split and source where given, in the order of sources and then of writing.

    All of them are in memory at once; `iterate_table` is for tables that may be large.
    """
    return list(iterate_table(directory, name, split=split, source=source))


def iterate_table(directory: Path, name: str, *, split: str | None = None, source: str | None = None
                  ) -> Iterator[dict[str, Any]]:
    """Rows as `read_table` has them, one after the other: a few megabytes in memory whatever the size of the table.

    `source` is a source of the preset or a part of one, as the column has it. Raises InputError when there is no such
    table.
    """
    shards = shards_of(directory, name, family_of(source) if source else None)
    wanted = [(column, value) for column, value in (("split", split), ("source", source)) if value is not None]
    for batch in iterate_batches(shards, SCHEMAS[name]):
        for column, value in wanted:
            batch = batch.filter(pc.equal(batch[column], value))
        yield from batch.to_pylist()


def family_of(source: str) -> str:
    """The source as the preset names it, without the part of it: `reviews` of `reviews/imdb`."""
    return source.split("/")[0]
