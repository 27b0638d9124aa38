"""Where rows of all shards meet: equal rows, runs of words of held-out text, near duplicates.

Each join is made in ranges of keys that are mapped over like shards, and leaves sorted runs in which a shard finds the
answers for its rows.
"""

import shutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from genai_core.context import Mapper
from genai_core.data.clean.decontaminate import index_runs
from genai_core.data.clean.deduplicate import Shingles, jaccard
from genai_core.data.clean.runs import different, groups, key_ranges, read_range, write_run
from genai_core.data.clean.steps import ADDRESS, NOT_RATED, Cleaning

KeyRange = tuple[int, int]


def join_equal_rows(cleaning: Cleaning, map_: Mapper) -> None:
    """Leave, for each row that repeats another, its address and the rank of the first such row."""
    ranges = key_ranges(_rows(cleaning.files("keys"), columns=2))
    for _ in map_(partial(_equal_in_range, cleaning=cleaning), list(enumerate(ranges))):
        pass


def _equal_in_range(task: tuple[int, KeyRange], cleaning: Cleaning) -> None:
    number, (low, high) = task
    keys, ranks = read_range(cleaning.files("keys"), low, high)
    repeats, firsts = [np.empty(0, np.uint64)], [np.empty(0, np.uint64)]
    for members in groups(keys, ranks):
        later = members[1:][members[1:] & np.uint64(NOT_RATED) != 0]      # a rated text is compared with, never removed
        repeats.append(later & np.uint64(ADDRESS))
        firsts.append(np.full(len(later), members[0]))
    write_run(cleaning.file("equal", number), np.concatenate(repeats), np.concatenate(firsts))


def join_held_out_runs(cleaning: Cleaning, map_: Mapper) -> None:
    """Leave one file of all different runs of held-out words, sorted, and the table that tells what is in it."""
    ranges = key_ranges(_rows(cleaning.files("held-out"), columns=1))
    parts = [cleaning.scratch / "held-out-parts" / f"{number:06d}" for number in range(len(ranges))]
    for _ in map_(partial(_different_in_range, cleaning=cleaning), list(zip(parts, ranges, strict=True))):
        pass
    runs = cleaning.scratch / "held-out-runs"
    with runs.open("wb") as whole:
        for part in parts:
            with part.open("rb") as stream:
                shutil.copyfileobj(stream, whole)
    index_runs(runs)


def _different_in_range(task: tuple[Path, KeyRange], cleaning: Cleaning) -> None:
    part, (low, high) = task
    (keys,) = read_range(cleaning.files("held-out"), low, high, columns=1)
    write_run(part, different(keys))


@dataclass(frozen=True)
class BandRange:
    """A range of keys of one band."""

    band: str
    low: int
    high: int


def join_near_duplicates(cleaning: Cleaning, map_: Mapper) -> int:
    """Leave, for each document that nearly repeats an earlier one, its address and the rank of that one; their number.

    Band after band, so that a document that is found in one needs no comparison in the next. In the end no two
    documents that stay and share a band reach the threshold, whatever the ranges and the workers.
    """
    folder = cleaning.scratch / "bands"
    repeated = np.empty(0, np.uint64)
    found = cleaning.scratch / "repeated"
    for band in sorted(path.name for path in folder.iterdir()) if folder.is_dir() else ():
        repeated.tofile(found)
        ranges = key_ranges(_rows(cleaning.files(f"bands/{band}"), columns=2))
        tasks = [BandRange(band, low, high) for low, high in ranges]
        answers = list(map_(partial(_near_in_range, cleaning=cleaning), tasks))
        repeats, firsts = (np.concatenate([answer[side] for answer in answers]) for side in (0, 1))
        write_run(cleaning.scratch / "near" / band, repeats & np.uint64(ADDRESS), firsts)
        repeated = np.sort(np.concatenate([repeated, repeats]))
    return len(repeated)


def _near_in_range(task: BandRange, cleaning: Cleaning) -> tuple[np.ndarray, np.ndarray]:
    keys, ranks = read_range(cleaning.files(f"bands/{task.band}"), task.low, task.high)
    repeated = np.fromfile(cleaning.scratch / "repeated", np.uint64)
    if len(repeated):
        known = repeated[np.searchsorted(repeated, ranks).clip(max=len(repeated) - 1)] == ranks
        keys, ranks = keys[~known], ranks[~known]
    shingles = Shingles(cleaning.scratch / "shingles")
    repeats, firsts = [], []
    for members in groups(keys, ranks):
        leaders: list[tuple[int, np.ndarray]] = []
        for rank in members.tolist():
            own = shingles.of(rank & ADDRESS)
            original = next((leader for leader, other in leaders
                             if jaccard(own, other) >= cleaning.config.near_duplicate_threshold), None)
            if original is None:
                leaders.append((rank, own))
            else:
                repeats.append(rank)
                firsts.append(original)
    return np.array(repeats, np.uint64), np.array(firsts, np.uint64)


def _rows(files: list[Path], columns: int) -> int:
    return sum(path.stat().st_size for path in files) // (8 * columns)
