"""What is in a file: one document, or rows; each kind of file, plain or compressed with gzip or zstd.

Everything is read in pieces of bounded size. Raises InputError where a file as a whole cannot be read; a row that
cannot is given as BadRow in its place, so that the ones after it can still be read.
"""

import gzip
import io
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.data.sources.bad_rows import BadRow
from genai_core.data.sources.formats.csv_rows import read_csv
from genai_core.data.sources.formats.json_rows import read_json
from genai_core.data.sources.paths import COMPRESSION, kind_of
from genai_core.errors import InputError

MAX_RECORD_BYTES = 64 * 2**20
"""A longer document or line is refused: a decompression bomb, or a file that is not what its name says."""
MAX_PARQUET_BYTES = 4 * 2**30
_BATCH = 1024


def read_document(file: Path) -> str:
    """The text of the file. Raises BadRow where it is empty, not UTF-8 or too long."""
    with opened(file) as stream:
        data = stream.read(MAX_RECORD_BYTES + 1)
    if len(data) > MAX_RECORD_BYTES:
        raise BadRow(f"one document of more than {MAX_RECORD_BYTES // 2**20} MiB; split it, or give it as jsonl with a "
                     "row for each text")
    text = _decoded(data)
    if not text.strip():
        raise BadRow("the file is empty")
    return text


def read_rows(file: Path, row_columns: frozenset[str]) -> Iterator[tuple[str, Any]]:
    """The place in the file of each row (`line 3`, `row 3`) and the row, or BadRow."""
    kind = kind_of(file)
    if kind in (".parquet", ".arrow"):
        for number, row in enumerate(_arrow_rows(file, kind), start=1):
            yield f"row {number}", row
        return
    with opened(file) as stream:
        if kind == ".json":
            numbered: Iterator[tuple[int, Any]] = read_json(stream, str(file), row_columns, MAX_RECORD_BYTES)
        elif kind == ".jsonl":
            numbered = _json_lines(stream)
        else:
            numbered = read_csv(_lines(stream), str(file), "\t" if kind == ".tsv" else ",", MAX_RECORD_BYTES)
        unit = "row" if kind == ".json" else "line"
        for number, row in numbered:
            yield f"{unit} {number}", row


@contextmanager
def opened(file: Path) -> Iterator[IO[bytes]]:
    """The file as a stream of what is in it, decompressed as it is read.

    zstandard's own reader ends without an error where a file is broken off, PyArrow's does not.
    """
    openers: dict[str, Any] = {".gz": gzip.open, ".zst": partial(pa.input_stream, compression="zstd")}
    try:
        with openers.get(file.suffix.lower(), partial(open, mode="rb"))(str(file)) as stream:
            yield io.BufferedReader(stream)
    except (OSError, EOFError, pa.ArrowException) as error:
        raise InputError(f"{file}: cannot be read ({error}); is it half a download?") from None


def _lines(stream: IO[bytes]) -> Iterator[bytes | BadRow]:
    while line := stream.readline(MAX_RECORD_BYTES + 1):
        if len(line) > MAX_RECORD_BYTES:
            while line and not line.endswith(b"\n"):
                line = stream.readline(2**20)
            yield BadRow(f"longer than {MAX_RECORD_BYTES // 2**20} MiB; is it really one row a line?")
        else:
            yield line


def _json_lines(stream: IO[bytes]) -> Iterator[tuple[int, Any]]:
    for number, line in enumerate(_lines(stream), start=1):
        if isinstance(line, BadRow):
            yield number, line
        elif line.strip():
            yield number, _json_of(line)


def _json_of(line: bytes) -> Any:
    try:
        return json.loads(_decoded(line))
    except BadRow as error:
        return error
    except (ValueError, RecursionError) as error:
        return BadRow(f"not JSON ({str(error).split(': line')[0]})")


def _decoded(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadRow(f"not UTF-8 text at byte {error.start}; convert it, for example with iconv") from None


def _arrow_rows(file: Path, kind: str) -> Iterator[Any]:
    """Batch by batch. What is compressed as a whole is unpacked to the disk first, since the end must be read first."""
    named = "Parquet" if kind == ".parquet" else "Arrow"
    try:
        with _unpacked(file) as source:
            for batch in pq.ParquetFile(source).iter_batches(_BATCH) if kind == ".parquet" else _arrow_batches(source):
                classes = _class_names(batch.schema)
                for start in range(0, batch.num_rows, _BATCH):
                    for row in batch.slice(start, _BATCH).to_pylist():
                        yield name_classes(row, classes)
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"{file}: not a readable {named} file ({reason})") from None


def name_classes(row: dict[str, Any], classes: dict[str, list[str]]) -> dict[str, Any]:
    """The row with the names of its classes in place of their numbers."""
    for column, names in classes.items():
        number = row.get(column)
        if isinstance(number, int) and 0 <= number < len(names):
            row[column] = names[number]
    return row


def _class_names(schema: pa.Schema) -> dict[str, list[str]]:
    """Columns whose numbers stand for classes, and the names of these, as `datasets` writes them into a file."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return {column: feature["names"] for column, feature in features.items()
                if isinstance(feature, dict) and isinstance(feature.get("names"), list)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _arrow_batches(source: Any) -> Iterator[Any]:
    """Of a file with a footer, or of a stream, which is what `save_to_disk` writes."""
    try:
        reader = pa.ipc.open_file(source)
    except pa.ArrowInvalid:
        source.seek(0)
        yield from pa.ipc.open_stream(source)
        return
    for number in range(reader.num_record_batches):
        yield reader.get_batch(number)


@contextmanager
def _unpacked(file: Path) -> Iterator[Any]:
    if file.suffix.lower() not in COMPRESSION:
        with pa.memory_map(str(file)) as source:
            yield source
        return
    with tempfile.TemporaryFile() as out:
        with opened(file) as stream:
            shutil.copyfileobj(_Limited(stream, file), out, 2**20)
        out.seek(0)
        yield pa.PythonFile(out)


class _Limited(io.RawIOBase):
    """A stream that refuses to give more than MAX_PARQUET_BYTES."""

    def __init__(self, stream: IO[bytes], file: Path):
        self.stream, self.file = stream, file
        self.left = MAX_PARQUET_BYTES

    def read(self, size: int = -1) -> bytes:
        data = self.stream.read(size)
        self.left -= len(data)
        if self.left < 0:
            raise InputError(f"{self.file}: unpacks to more than {MAX_PARQUET_BYTES // 2**30} GiB; Parquet and Arrow "
                             "are compressed already, so give it as it is")
        return data
