"""The Parquet tables that data stages hand on: their columns, and writing and reading them.

A table's bytes depend on its rows alone (and the version of PyArrow), so that equal data has an equal digest.
"""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.errors import InputError

_COMMON = [("id", pa.string()), ("source", pa.string()), ("split", pa.string()), ("licence", pa.string())]
_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))

SCHEMAS = {
    # label: 0 negative, 1 positive, where people gave one; raw_words: words and line ends before any cleaning
    "documents": pa.schema([*_COMMON, ("text", pa.string()), ("label", pa.int8()), ("raw_words", pa.int64())]),
    # accepted: answers that count as right, for questions; empty for dialogue
    "chats": pa.schema([*_COMMON, ("messages", _MESSAGES), ("accepted", pa.list_(pa.string()))]),
    # rating: mean over the raters, each from -4 to 4
    "ratings": pa.schema([*_COMMON, ("text", pa.string()), ("rating", pa.float64()), ("raters", pa.int64())]),
    "translations": pa.schema([*_COMMON, ("source_text", pa.string()), ("target_text", pa.string())]),
    # title: what the authors of a text called it
    "titles": pa.schema([*_COMMON, ("text", pa.string()), ("title", pa.string())]),
    # prompt: the beginning of a Python function; test: code that defines check(function)
    "problems": pa.schema([*_COMMON, ("prompt", pa.string()), ("solution", pa.string()), ("test", pa.string()),
                           ("entry_point", pa.string())]),
    # pixels: height · width grey levels from 0 to 255, row by row
    "images": pa.schema([*_COMMON, ("pixels", pa.binary()), ("height", pa.int16()), ("width", pa.int16()),
                         ("label", pa.int8())]),
}

TEXT_COLUMNS = ("text", "title", "source_text", "target_text")
"""Columns that hold a text, in whichever table."""

Rows = list[dict[str, Any]]


def write_table(rows: Rows, name: str, directory: Path) -> None:
    table = pa.Table.from_pylist(rows, schema=SCHEMAS[name])
    pq.write_table(table, directory / f"{name}.parquet", compression="zstd", row_group_size=65_536)


def read_table(directory: Path, name: str, *, split: str | None = None, source: str | None = None) -> Rows:
    """Rows of one table, of one split and source where given, in the order they were written."""
    path = directory / f"{name}.parquet"
    if not path.is_file():
        raise InputError(f"{path} is missing: the artifact is not one of a data stage")
    filters = [(column, "=", value) for column, value in (("split", split), ("source", source)) if value is not None]
    return pq.read_table(path, schema=SCHEMAS[name], filters=filters or None).to_pylist()
