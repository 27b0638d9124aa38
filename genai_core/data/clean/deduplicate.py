"""Near duplicates by MinHash signatures and locality-sensitive hashing (Broder 1997; Lee et al. 2021).

Signatures only make candidates: two documents that share a band are compared by the true Jaccard similarity of their
sets of word 5-grams, and the later goes when it reaches the threshold. All is NumPy over whole shards, fast enough that
`rensa` would not be noticed (docs/LOG.md), so there is one way on every machine, with the same removals.
"""

from pathlib import Path

import numpy as np

from genai_core.data.clean.runs import different
from genai_core.data.clean.words import Words, hash_runs, words_left

SHINGLE_WORDS = 5
RECALL = 0.9
"""Least probability that two documents with just the threshold's similarity share a band."""
_BLOCK = 2**15


def shingle_sets(words: Words) -> tuple[np.ndarray, np.ndarray]:
    """Different shingles of each text, uint32, sorted within each, and where each text's begin and end, int64 (N + 1,).

    A text of fewer than five words has one shingle, the whole.
    """
    counts = np.diff(words.bounds)
    text_of = np.repeat(np.arange(len(counts), dtype=np.uint64) << np.uint64(32), counts)
    left = words_left(words)
    whole = np.zeros(len(left), bool)      # at the first word of each text
    whole[words.bounds[:-1][counts > 0]] = True
    found = [np.flatnonzero(counts == 0).astype(np.uint64) << np.uint64(32)]
    for length, hashes in hash_runs(words, SHINGLE_WORDS):
        taken = left[:len(hashes)] >= length
        if length < SHINGLE_WORDS:
            taken = whole[:len(hashes)] & (left[:len(hashes)] == length)
        found.append((hashes[taken] >> np.uint64(32)) | text_of[:len(hashes)][taken])
    ordered = different(np.concatenate(found))
    bounds = np.searchsorted(ordered, np.arange(len(counts) + 1, dtype=np.uint64) << np.uint64(32))
    return ordered.astype(np.uint32), bounds.astype(np.int64)


def signatures(shingles: np.ndarray, bounds: np.ndarray, permutations: int) -> np.ndarray:
    """MinHash signatures, uint32 (permutations, N): the least value of each hash function over a text's shingles."""
    generator = np.random.default_rng(1)
    factors = generator.integers(0, 2**31, permutations).astype(np.uint32) * np.uint32(2) + np.uint32(1)
    terms = generator.integers(0, 2**32, permutations).astype(np.uint32)
    texts = len(bounds) - 1
    least = np.empty((permutations, texts), np.uint32)
    first = 0
    while first < texts:
        last = max(first + 1, int(np.searchsorted(bounds, bounds[first] + _BLOCK, side="right")) - 1)
        block = shingles[bounds[first]:bounds[last]]
        starts = bounds[first:last] - bounds[first]
        values = np.empty_like(block)
        for number in range(permutations):
            np.multiply(block, factors[number], out=values)
            np.add(values, terms[number], out=values)
            least[number, first:last] = np.minimum.reduceat(values, starts)
        first = last
    return least


def band_rows(threshold: float, permutations: int) -> int:
    """Rows of a band: as many as let a pair at the threshold share one of the bands with probability `RECALL`."""
    def recall(rows: int) -> float:
        return float(1 - (1 - threshold**rows) ** (permutations // rows))

    return max((rows for rows in range(1, permutations + 1) if recall(rows) >= RECALL), default=1)


def band_keys(signature: np.ndarray, rows: int) -> np.ndarray:
    """A key for each band of each text, uint64 (bands, N)."""
    bands = len(signature) // rows
    keys = np.zeros((bands, signature.shape[1]), np.uint64)
    for row in range(rows):
        keys = keys * np.uint64(0x9E3779B97F4A7C15) + signature[row:bands * rows:rows]
    keys ^= keys >> np.uint64(29)
    return keys * np.uint64(0xBF58476D1CE4E5B9)


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Similarity of two sets of shingles, each sorted and without repeats: shared over all."""
    shared = len(np.intersect1d(one, other, assume_unique=True))
    return shared / (len(one) + len(other) - shared)


class Shingles:
    """The sets of shingles that shards have written, read one document at a time."""

    def __init__(self, directory: Path):
        self._directory = directory
        self._bounds: dict[int, np.ndarray] = {}

    def of(self, address: int) -> np.ndarray:
        """The shingles of the document at `address`: number of its shard, times 2^32, plus its row."""
        shard, row = address >> 32, address & 0xFFFFFFFF
        if shard not in self._bounds:
            self._bounds[shard] = np.memmap(self._directory / f"{shard:06d}.bounds", "<i8", "r")
        first, last = self._bounds[shard][row:row + 2]
        with (self._directory / f"{shard:06d}.shingles").open("rb") as stream:
            stream.seek(4 * int(first))
            return np.fromfile(stream, "<u4", int(last - first))


def write_shingles(directory: Path, shard: int, shingles: np.ndarray, bounds: np.ndarray) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    shingles.astype("<u4").tofile(directory / f"{shard:06d}.shingles")
    bounds.astype("<i8").tofile(directory / f"{shard:06d}.bounds")
