"""The user's own files: txt, md, html, py, jsonl, csv and parquet, plain or compressed with gzip or zstd."""

import csv
import glob
import gzip
import io
import itertools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq
import zstandard

from genai_core.config.data import FileSource
from genai_core.errors import InputError
from genai_core.roots import require_allowed

DOCUMENT_SUFFIXES = (".txt", ".md", ".html", ".htm", ".py")
TABLE_SUFFIXES = (".jsonl", ".csv", ".parquet")
_COMPRESSION = (".gz", ".zst")

MAX_RECORD_BYTES = 64 * 2**20
"""A longer document or line is refused: a decompression bomb, or a file that is not what its name says."""
MAX_PARQUET_BYTES = 4 * 2**30


def find_files(source: FileSource, name: str, root: Path) -> list[Path]:
    """The files that a source's patterns match, sorted.

    Raises InputError when a pattern matches none, leads out of the allowed roots, or matches a kind that is unknown.
    """
    files: set[Path] = set()
    for pattern in source.paths:
        absolute = str(Path(pattern).expanduser()) if pattern.startswith(("~", "/")) else str(root / pattern)
        require_allowed(Path(absolute), f"collect.sources.{name}.paths", root)
        # Path.glob takes no absolute pattern
        matches = [Path(match) for match in glob.glob(absolute, recursive=True) if Path(match).is_file()]  # noqa: PTH207
        if not matches:
            raise InputError(f"collect.sources.{name}.paths: no file matches {absolute}")
        files.update(matches)
    for file in files:
        require_allowed(file, f"collect.sources.{name}.paths", root)      # a link may lead out again
        if _format(file) not in DOCUMENT_SUFFIXES + TABLE_SUFFIXES:
            raise InputError(f"collect.sources.{name}: {file}: unknown kind of file; take one of "
                             f"{', '.join(DOCUMENT_SUFFIXES + TABLE_SUFFIXES)}, each also with .gz or .zst")
    return sorted(files)


def read_files(source: FileSource, name: str, root: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    for file in find_files(source, name, root):
        kind = _format(file)
        if kind in DOCUMENT_SUFFIXES:
            text = _document(file)
            if not text.strip():
                if kind == ".py":      # as __init__.py is in most packages
                    continue
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


@contextmanager
def _opened(file: Path) -> Iterator[IO[bytes]]:
    """The file as a stream of what is in it, decompressed as it is read."""
    openers: dict[str, Any] = {".gz": gzip.open, ".zst": zstandard.open}
    try:
        with openers.get(file.suffix.lower(), open)(file, "rb") as stream:
            yield io.BufferedReader(stream)
    except (OSError, EOFError, zstandard.ZstdError) as error:
        raise InputError(f"{file}: cannot be read ({error})") from None


def _document(file: Path) -> str:
    with _opened(file) as stream:
        data = stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise InputError(f"{file}: one document of more than {MAX_RECORD_BYTES // 2**20} MiB; split it, or give it as "
                         "jsonl with a row for each text")
    return _decoded(data, str(file))


def _lines(file: Path) -> Iterator[str]:
    with _opened(file) as stream:
        for number in itertools.count(1):
            line = stream.readline(MAX_RECORD_BYTES + 1)
            if not line:
                return
            if len(line) > MAX_RECORD_BYTES:
                raise InputError(f"{file}, line {number}: longer than {MAX_RECORD_BYTES // 2**20} MiB; is it really "
                                 "one row a line?")
            yield _decoded(line, f"{file}, line {number}")


def _decoded(data: bytes, place: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{place}: not UTF-8 text at byte {error.start}; convert it, for example with iconv") from None


def _rows(file: Path, kind: str) -> Iterator[Any]:
    if kind == ".parquet":
        yield from _parquet_rows(file)
    elif kind == ".csv":
        csv.field_size_limit(MAX_RECORD_BYTES)
        try:
            yield from csv.DictReader(_lines(file))
        except csv.Error as error:
            raise InputError(f"{file}: not a readable csv file ({error})") from None
    else:
        for number, line in enumerate(_lines(file), start=1):
            if not line.strip():
                continue
            try:
                yield json.loads(line)
            except (json.JSONDecodeError, RecursionError) as error:
                raise InputError(f"{file}, line {number}: not JSON ({str(error).split(': line')[0]})") from None


def _parquet_rows(file: Path) -> Iterator[Any]:
    """Batch by batch. A compressed one is read whole, since Parquet has its table of contents at the end."""
    try:
        if file.suffix.lower() == ".parquet":
            source: Any = file
        else:
            with _opened(file) as stream:
                data = stream.read(MAX_PARQUET_BYTES + 1)
            if len(data) > MAX_PARQUET_BYTES:
                raise InputError(f"{file}: unpacks to more than {MAX_PARQUET_BYTES // 2**30} GiB; Parquet is "
                                 "compressed already, so give it as it is")
            source = io.BytesIO(data)
        for batch in pq.ParquetFile(source).iter_batches():
            yield from batch.to_pylist()
    except (pa.ArrowException, OSError) as error:
        raise InputError(f"{file}: not a readable Parquet file ({error})") from None
