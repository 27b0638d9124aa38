"""A table on the disk: a directory of Parquet shards `SOURCE-NUMBER.parquet`, each of one source.

Shards are cut by the rows alone, so that equal data has equal bytes whoever wrote it, and a source that is added,
removed or grown leaves the other sources' shards as they are.
"""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from genai_core.errors import InputError

SHARD_CHARACTERS = 8 * 2**20
"""A shard is full when its texts have so many characters: some hundred MB of memory while it is worked on."""
ROW_CHARACTERS = 100
"""What a row counts beside its texts."""
NO_SOURCE = "_empty"
"""What the one shard of a table without rows is named after."""

WRITING: dict[str, Any] = {"compression": "zstd", "row_group_size": 65_536}


def shard_path(directory: Path, table: str, source: str, number: int) -> Path:
    return directory / table / f"{source}-{number:05d}.parquet"


def file_digest(path: Path) -> str:
    """SHA-256 of a file."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def source_of(path: Path) -> str:
    """Name of the source that a shard is of, as the preset calls it."""
    return path.stem.rpartition("-")[0]


def shards_of(directory: Path, table: str, source: str | None = None) -> list[Path]:
    """The shards of a table, of one source where given, in the order of their rows: by source, then by number.

    Raises InputError when the directory holds no such table.
    """
    folder = directory / table
    if not folder.is_dir():
        raise InputError(f"{folder} is missing: the artifact is not one of a data stage")
    paths = [path for path in folder.glob("*.parquet") if source is None or source_of(path) == source]
    return sorted(paths, key=lambda path: (source_of(path), int(path.stem.rpartition("-")[2])))


def iterate_batches(paths: list[Path], schema: pa.Schema, rows: int = 4096) -> Iterator[pa.RecordBatch]:
    """Record batches of some shards, a few megabytes in memory at a time."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            if not file.schema_arrow.equals(schema):
                raise InputError(f"{path}: other columns than this version of the project writes")
            yield from file.iter_batches(rows)


class ShardWriter:
    """Writes the rows of one source into the shards of one table, holding at most one shard in memory."""

    def __init__(self, directory: Path, table: str, source: str, schema: pa.Schema):
        self.rows = 0
        self._directory, self._table, self._source, self._schema = directory, table, source, schema
        self._waiting: list[dict[str, Any]] = []
        self._characters = 0
        self._number = 0

    def add(self, row: dict[str, Any], characters: int) -> None:
        """Take a row whose texts have so many characters."""
        self._waiting.append(row)
        self._characters += characters + ROW_CHARACTERS
        self.rows += 1
        if self._characters >= SHARD_CHARACTERS:
            self.close()

    def close(self) -> None:
        """Write what waits as a shard."""
        if self._waiting:
            write_shard(pa.Table.from_pylist(self._waiting, schema=self._schema),
                        shard_path(self._directory, self._table, self._source, self._number))
            self._number += 1
        self._waiting, self._characters = [], 0


def write_shard(table: pa.Table, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, **WRITING)
