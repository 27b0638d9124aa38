"""Sorted runs: arrays of 64-bit keys and rows on the disk, by which a join over all shards is made in parts.

Each shard writes a run sorted by key. The join of one range of keys reads that range out of every run, so that equal
keys meet whatever shard they came from, in as much memory as a range takes. An embedded engine (DuckDB, Polars) was not
taken: near duplicates need our own comparison inside the join, and its order of rows depends on its threads.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

KEYS = 2**64
RANGE_ROWS = 2**17
"""Rows that a range of keys should have: 2 MB in memory."""
MANY_RANGES = 64
"""Enough ranges for the processes of a machine; where there are more rows, ranges grow before their number does."""
LARGEST_RANGE = 2**22
"""Most rows of a range: 64 MB, of which some copies are made."""


def write_run(path: Path, keys: np.ndarray, rows: np.ndarray | None = None) -> None:
    """Write keys (N,), and rows (N,) that belong to them, both uint64, sorted by key and then by row."""
    order = np.lexsort((rows, keys)) if rows is not None else np.argsort(keys)
    columns = [keys] if rows is None else [keys, rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as stream:
        for column in columns:
            stream.write(np.ascontiguousarray(column[order], "<u8").tobytes())


def read_range(paths: Sequence[Path], low: int, high: int, columns: int = 2) -> tuple[np.ndarray, ...]:
    """Keys from `low` to below `high` of all runs, and their rows: each (N,), in the order of the runs."""
    parts = []
    for path in paths:
        size = path.stat().st_size // 8
        if not size:
            continue
        run = np.memmap(path, "<u8", "r").reshape(columns, -1)
        first = int(np.searchsorted(run[0], np.uint64(low)))
        last = run.shape[1] if high >= KEYS else int(np.searchsorted(run[0], np.uint64(high)))
        if first < last:
            parts.append(np.array(run[:, first:last]))
    whole = np.concatenate(parts, axis=1) if parts else np.empty((columns, 0), np.uint64)
    return tuple(whole)


def key_ranges(rows: int) -> list[tuple[int, int]]:
    """The ranges that the join of so many rows is made in, first key and the one after the last."""
    count = 1 + max(min(rows // RANGE_ROWS, MANY_RANGES - 1), rows // LARGEST_RANGE)
    bounds = [KEYS * number // count for number in range(count + 1)]
    return list(pairwise(bounds))


def different(values: np.ndarray) -> np.ndarray:
    """The different values, sorted. `np.unique` takes ten times as long: it puts them into a hash table first."""
    ordered = np.sort(values)
    return ordered[np.diff(ordered, prepend=ordered[:1] + np.uint64(1)) != 0]


def groups(keys: np.ndarray, rows: np.ndarray) -> Iterator[np.ndarray]:
    """The rows, sorted, of each key that more than one row has."""
    order = np.lexsort((rows, keys))
    keys, rows = keys[order], rows[order]
    edges = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1], [True]])) if len(keys) else np.empty(0, int)
    sizes = np.diff(edges)
    for group in np.flatnonzero(sizes > 1):
        yield rows[edges[group]:edges[group + 1]]
