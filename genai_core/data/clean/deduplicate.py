"""Near duplicates by MinHash signatures and locality-sensitive hashing (Broder 1997; Lee et al. 2021).

The signatures come from `datasketch`; words are hashed to 32 bits and combined to 5-gram shingles with NumPy, which is
most of the work.
"""

import re
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from datasketch import MinHash, MinHashLSH

SHINGLE_WORDS = 5
_WORD = re.compile(r"\w+")


def shingles(text: str) -> np.ndarray:
    """Hashes of the different word 5-grams of a text, uint64 holding 32 bits each; one hash for shorter texts."""
    words = _WORD.findall(text.lower())
    hashes = np.fromiter((zlib.crc32(word.encode("utf-8", "surrogatepass")) for word in words), np.uint64, len(words))
    length = max(1, len(hashes) - SHINGLE_WORDS + 1)
    combined = np.zeros(length, np.uint64)
    for offset in range(min(SHINGLE_WORDS, len(hashes))):
        combined = combined * np.uint64(0x9E3779B97F4A7C15) + hashes[offset:offset + length]
    return np.unique((combined ^ (combined >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9) >> np.uint64(32))


def near_duplicates(texts: Iterable[str], threshold: float, permutations: int) -> Iterator[int | None]:
    """For each text the index of an earlier, kept text that it nearly repeats, or None when it is new.

    Two texts are near duplicates when the signatures estimate a Jaccard similarity of the shingle sets of at least
    `threshold`; candidates come from the banded index, the estimate itself decides.
    """
    index = MinHashLSH(threshold=threshold, num_perm=permutations)
    kept: dict[int, MinHash] = {}
    for number, text in enumerate(texts):
        signature = MinHash(num_perm=permutations, seed=1, hashfunc=int)
        signature.update_batch(shingles(text))
        candidates = [key for key in index.query(signature) if kept[key].jaccard(signature) >= threshold]
        if candidates:
            yield min(candidates)
            continue
        kept[number] = signature
        index.insert(number, signature, check_duplication=False)
        yield None
