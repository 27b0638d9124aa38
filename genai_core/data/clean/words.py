"""Hashes of words and of runs of words, for many texts at once with NumPy: what comparing texts begins with.

A word is a run of letters, digits and underscores in lower case, as the regular expression `\\w+` finds it; of scripts
that are written without spaces each letter is one, since what stands between two marks there is a clause. Its hash is
a polynomial in its code points modulo 2^64, taken from the prefix sums over a whole block of texts; so no Python runs
for each word. Equal words have equal hashes on every machine.
"""

import re
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np

BLOCK_CHARACTERS = 2**17
"""Characters that are hashed at a time: more would not fit a processor's cache, and take memory."""

_UNSPACED = ("\u0e00-\u0eff"                                    # Thai, Lao
             "\u1000-\u109f\ua9e0-\ua9ff\uaa60-\uaa7f"          # Burmese
             "\u1780-\u17ff"                                    # Khmer
             "\u3005\u3007\u3040-\u30ff\u31f0-\u31ff\uff66-\uff9f"      # kana, the repetition mark and zero
             "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff")      # Chinese characters
WORD = re.compile(rf"(?=\w)[{_UNSPACED}]|[^\W{_UNSPACED}]+")
_FIRST_UNSPACED = 0x0E00
_NOT_WORD = re.compile(r"\W")
_BASE = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1
_INVERSE = pow(_BASE, -1, 2**64)


class Words(NamedTuple):
    """Hashes of the words of some texts, uint64 (W,), and where each text's words begin and end, int64 (N + 1,)."""

    hashes: np.ndarray
    bounds: np.ndarray
    is_letter: np.ndarray
    """Whether a word is one letter of a script without spaces, bool (W,)."""


def hash_words(texts: Sequence[str]) -> Words:
    hashes, letters = [], []
    counts = np.zeros(len(texts) + 1, np.int64)
    for pieces, owners in _blocks(texts):
        block_hashes, block_counts, block_letters = _hash_block(pieces)
        hashes.append(block_hashes)
        letters.append(block_letters)
        np.add.at(counts, np.array(owners) + 1, block_counts)
    if not hashes:
        return Words(np.empty(0, np.uint64), counts.cumsum(), np.empty(0, bool))
    return Words(np.concatenate(hashes), counts.cumsum(), np.concatenate(letters))


def hash_runs(words: Words, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """For each length n up to `longest`: n, and the hashes of the n consecutive words from each word on, (W - n + 1,).

    They do not heed where a text ends: `words_left` tells which runs cross into the next.
    """
    total = len(words.hashes)
    combined = np.zeros(total, np.uint64)
    for length in range(1, min(longest, total) + 1):
        combined = combined[:total - length + 1] * np.uint64(_BASE)
        combined += words.hashes[length - 1:]
        yield length, combined


def words_left(words: Words) -> np.ndarray:
    """Number of words from each word, itself included, to the end of its text, int64 (W,)."""
    return np.repeat(words.bounds[1:], np.diff(words.bounds)) - np.arange(len(words.hashes))


def mix(values: np.ndarray) -> np.ndarray:
    """The finaliser of SplitMix64 (Steele et al. 2014): every bit of the input moves every bit of the output."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def _blocks(texts: Sequence[str]) -> Iterator[tuple[list[str], list[int]]]:
    """Blocks of texts in lower case, long ones in pieces, and which text each piece is of."""
    block: list[str] = []
    owners: list[int] = []
    characters = 0
    for owner, text in enumerate(texts):
        for piece in _pieces(text.lower()):
            block.append(piece)
            owners.append(owner)
            characters += len(piece)
            if characters >= BLOCK_CHARACTERS:
                yield block, owners
                block, owners, characters = [], [], 0
    if block:
        yield block, owners


def _pieces(text: str) -> Iterator[str]:
    """A text in pieces of at most two blocks where it has an end of a word to be cut at."""
    start = 0
    while len(text) - start > 2 * BLOCK_CHARACTERS and (end := _NOT_WORD.search(text, start + BLOCK_CHARACTERS)):
        yield text[start:end.start()]
        start = end.start()
    yield text[start:]


def _hash_block(lowered: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    ends = np.cumsum([len(text) + 1 for text in lowered])
    joined = "\n".join(lowered) + "\n"      # a line end is no part of a word, so each text's last word ends
    points = (np.frombuffer(joined.encode("ascii"), np.uint8) if joined.isascii()
              else np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32))
    starts, stops, letters = _find_words(points)
    powers, inverses = _powers(len(points))
    sums = np.zeros(len(points) + 1, np.uint64)
    np.cumsum((points + np.uint64(1)) * powers, out=sums[1:])
    hashes = mix((sums[stops] - sums[starts]) * inverses[starts])
    counts = np.diff(np.searchsorted(starts, ends), prepend=0)
    return hashes, counts, letters


def _find_words(points: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Where the words of a block begin and end, and which are one letter of a script without spaces."""
    inside = _word_characters()[points]
    if points.dtype == np.uint8 or points.max() < _FIRST_UNSPACED:
        edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
        if inside[0]:
            edges = np.concatenate([[0], edges])
        starts, stops = edges[::2], edges[1::2]      # the last character is a line end: every word has stopped
        return starts, stops, np.zeros(len(starts), bool)
    alone = _unspaced_letters()[points]
    parted = alone[1:] | alone[:-1]      # between two characters
    begins, ends = inside.copy(), inside.copy()
    begins[1:] &= ~inside[:-1] | parted
    ends[:-1] &= ~inside[1:] | parted
    starts = np.flatnonzero(begins)
    return starts, np.flatnonzero(ends) + 1, alone[starts]


@cache
def _word_characters() -> np.ndarray:
    """(0x110000,) whether a code point is part of a word."""
    return _matching(r"\w")


@cache
def _unspaced_letters() -> np.ndarray:
    """(0x110000,) whether a code point is a letter of a script without spaces."""
    return _matching(rf"(?=\w)[{_UNSPACED}]")


def _matching(pattern: str) -> np.ndarray:
    table = np.zeros(0x110000, bool)
    table[[match.start() for match in re.finditer(pattern, "".join(map(chr, range(0x110000))))]] = True
    return table


@cache
def _known_powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    powers = np.full(size, _BASE, np.uint64)
    inverses = np.full(size, _INVERSE, np.uint64)
    powers[0] = inverses[0] = 1
    return np.cumprod(powers), np.cumprod(inverses)


def _powers(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Powers of the base and of its inverse modulo 2^64, up to `size`."""
    longest = 2 * BLOCK_CHARACTERS
    if size <= longest:
        powers, inverses = _known_powers(longest)
        return powers[:size], inverses[:size]
    return _known_powers.__wrapped__(size)      # one long text: not to be kept
