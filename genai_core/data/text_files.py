"""The user's own files: txt, md, html, jsonl, csv and parquet, plain or compressed with gzip or zstd."""

import csv
import glob
import gzip
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from genai_core.config.data import FileSource
from genai_core.errors import InputError

DOCUMENT_SUFFIXES = (".txt", ".md", ".html", ".htm")
TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
_COMPRESSION = (".gz", ".zst")


def find_files(source: FileSource, name: str, root: Path) -> list[Path]:
    """The files that a source's patterns match, sorted; InputError when a pattern matches none or a kind is unknown."""
    files: set[Path] = set()
    for pattern in source.paths:
        absolute = str(Path(pattern).expanduser()) if pattern.startswith(("~", "/")) else str(root / pattern)
        # Path.glob takes no absolute pattern
        matches = [Path(match) for match in glob.glob(absolute, recursive=True) if Path(match).is_file()]  # noqa: PTH207
        if not matches:
            raise InputError(f"collect.sources.{name}.paths: no file matches {absolute}")
        files.update(matches)
    for file in files:
        if _format(file) not in DOCUMENT_SUFFIXES + TABLE_SUFFIXES:
            raise InputError(f"collect.sources.{name}: {file}: unknown kind of file; take one of "
                             f"{', '.join(DOCUMENT_SUFFIXES + TABLE_SUFFIXES)}, each also with .gz or .zst")
    return sorted(files)


def read_files(source: FileSource, name: str, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in find_files(source, name, root):
        kind = _format(file)
        if kind in DOCUMENT_SUFFIXES:
            text = _text(file)
            if not text.strip():
                raise InputError(f"{file}: the file is empty")
            yield "documents", {"text": text}
        else:
            for number, row in enumerate(_rows(file, kind), start=1):
                yield _record(row, source, f"{file}, row {number}")


def _record(row: Any, source: FileSource, place: str) -> tuple[str, dict[str, Any]]:
    if source.content == "chats":
        return "chats", {"messages": check_messages(row.get("messages") if isinstance(row, dict) else None, place),
                         "accepted": []}
    text = row.get(source.text_column) if isinstance(row, dict) else None
    if not isinstance(text, str):
        columns = ", ".join(row) if isinstance(row, dict) else "no columns"
        raise InputError(f"{place}: no text in column {source.text_column!r} (there are {columns}); set text_column")
    return "documents", {"text": text}


def check_messages(messages: Any, place: str) -> list[dict[str, str]]:
    """OpenAI-style messages as they are; InputError unless roles and contents are right and an assistant answers."""
    if isinstance(messages, str):
        try:
            messages = json.loads(messages)
        except json.JSONDecodeError:
            raise InputError(f"{place}: `messages` is text that is not JSON") from None
    if not isinstance(messages, list) or not messages:
        raise InputError(f"{place}: no list `messages`; chats need [{{'role': 'user', 'content': ...}}, ...]")
    for message in messages:
        if (not isinstance(message, dict) or message.get("role") not in ("system", "user", "assistant")
                or not isinstance(message.get("content"), str)):
            raise InputError(f"{place}: a message needs a role (system, user or assistant) and a text as content")
    if messages[-1]["role"] != "assistant":
        raise InputError(f"{place}: the last message is not the assistant's, so there is nothing to learn")
    return [{"role": message["role"], "content": message["content"]} for message in messages]


def _format(file: Path) -> str:
    return (file.with_suffix("") if file.suffix.lower() in _COMPRESSION else file).suffix.lower()


def _bytes(file: Path) -> bytes:
    try:
        data = file.read_bytes()
        if file.suffix.lower() == ".gz":
            return gzip.decompress(data)
        if file.suffix.lower() == ".zst":
            return zstandard.ZstdDecompressor().stream_reader(data).read()
        return data
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None


def _text(file: Path) -> str:
    try:
        return _bytes(file).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{file}: not UTF-8 text at byte {error.start}; convert it, for example with iconv") from None


def _rows(file: Path, kind: str) -> Iterator[Any]:
    if kind == ".parquet":
        try:
            yield from pq.read_table(io.BytesIO(_bytes(file))).to_pylist()
        except pa.ArrowException as error:
            raise InputError(f"{file}: not a readable Parquet file ({error})") from None
    elif kind == ".csv":
        csv.field_size_limit(2**27)
        yield from csv.DictReader(io.StringIO(_text(file), newline=""))
    else:
        for number, line in enumerate(_text(file).splitlines(), start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise InputError(f"{file}, line {number}: not JSON ({error.msg})") from None
