"""Removal of training text that shares long runs of words with held-out text (Brown et al. 2020, appendix C).

A run is of 13 words by default. In scripts without spaces each letter is a word of its own (words.py), and two of them
count as one here: Chinese words have 1.5 to 2 characters, so a run is of 26 characters there. Thirteen of them are one
clause, such as a set phrase or a headline, which people write twice; 13 English words are some 65 letters, a sentence.
Of pairs of characters only those would be found that begin in step with the held-out text.

The hashes of all held-out runs lie sorted in one file. A table of bits beside it, which all processes see at once,
tells of nearly all runs that they are none of them; the few that pass are looked up in the file, piece by piece, so
that memory does not grow with it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from genai_core.data.clean.runs import different
from genai_core.data.clean.words import WORD, Words, hash_runs, hash_words, words_left

_MOST_BITS = 32
"""Of the table: its size is two to this, in bits, at most (512 MB, for 10 GB of held-out text and more)."""
_PIECE = 2**20


TEMPLATE_TEXTS = 3
"""Held-out texts that may share a run before it counts as the wording of questions, which gives none of them away."""


def held_out_runs(texts: Sequence[str], ngram: int, templates: bool = False) -> np.ndarray:
    """Sorted, different hashes of the runs of `ngram` words of texts, or of twice as many letters of scripts without
    spaces; of a shorter text the whole, from half of that on. A shorter sentence may be written twice by chance.

    With `templates`, runs that more than TEMPLATE_TEXTS of the texts have are left out: questions begin alike.
    """
    words = hash_words(texts)
    left, sizes, full = words_left(words), _sizes(words), _run_lengths(words, ngram)
    firsts = words.bounds[:-1][np.diff(words.bounds) > 0]
    is_whole = np.zeros(len(left), bool)      # at the first word of each text that is too short for a run
    text_sizes = sizes[firsts + left[firsts]] - sizes[firsts]
    is_whole[firsts] = (text_sizes >= 2 * _shortest(ngram)) & (text_sizes < 2 * ngram)
    found, places = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for length, hashes in hash_runs(words, _longest(words, ngram)):
        if length < _shortest(ngram):
            continue
        count = len(hashes)
        is_run = (full[:count] == length) & (left[:count] >= length)
        at = np.flatnonzero(is_run | (is_whole[:count] & (left[:count] == length)))
        found.append(hashes[at])
        places.append(at)
    runs = np.concatenate(found)
    if templates:
        runs = _rare(runs, np.searchsorted(words.bounds, np.concatenate(places), side="right"))
    return different(runs)


def _rare(runs: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """The runs that at most TEMPLATE_TEXTS different texts have."""
    order = np.lexsort((texts, runs))
    runs, texts = runs[order], texts[order]
    once = np.ones(len(runs), bool)      # of a text that repeats a run
    once[1:] = (runs[1:] != runs[:-1]) | (texts[1:] != texts[:-1])
    runs = runs[once]
    values, counts = np.unique(runs, return_counts=True)
    return values[counts <= TEMPLATE_TEXTS]


def shared_runs(words: Words, known: "KnownRuns", ngram: int) -> dict[int, tuple[int, int]]:
    """For each text that shares a run with held-out text: the run's first word in the text and its number of words."""
    left = words_left(words)
    lengths, places, asked = [], [], []
    for length, hashes in hash_runs(words, _longest(words, ngram)):
        if length >= _shortest(ngram):
            likely = known.likely(hashes)
            likely = likely[left[likely] >= length]      # a run does not cross into the next text
            lengths.append(length)
            places.append(likely)
            asked.append(hashes[likely])
    shared: dict[int, tuple[int, int]] = {}
    for length, likely, holds in zip(lengths, places, known.hold(asked), strict=True):
        found = likely[holds]
        texts, first = np.unique(np.searchsorted(words.bounds, found, side="right") - 1, return_index=True)
        for text, place in zip(texts.tolist(), found[first].tolist(), strict=True):
            shared.setdefault(text, (place - int(words.bounds[text]), length))
    return shared


def run_of_words(text: str, first: int, length: int) -> str:
    """A run of words of a text, as people may read it."""
    return " ".join(WORD.findall(text.lower())[first:first + length])


def _shortest(ngram: int) -> int:
    """Least words of a held-out text that counts as a whole."""
    return (ngram + 1) // 2


def _longest(words: Words, ngram: int) -> int:
    """Most words of a run of the size of `ngram` words."""
    return 2 * ngram if words.is_letter.any() else ngram


def _sizes(words: Words) -> np.ndarray:
    """Size of all that stands before each word, and of everything, in half words: 2 a word, 1 a letter that is one."""
    return np.concatenate([[0], np.cumsum(2 - words.is_letter.astype(np.int64))])


def _run_lengths(words: Words, ngram: int) -> np.ndarray:
    """Number of words from each word on that have the size of `ngram` words; too many where the texts end before."""
    sizes = _sizes(words)
    return np.searchsorted(sizes, sizes[:-1] + 2 * ngram) - np.arange(len(words.hashes))


def shares_runs(texts: Sequence[str], held_out: Sequence[str], ngram: int) -> list[bool]:
    """Whether each text shares a run with one of those that are held out, all of which are in memory."""
    shared = shared_runs(hash_words(texts), KnownRuns(held_out_runs(held_out, ngram)), ngram)
    return [number in shared for number in range(len(texts))]


class KnownRuns:
    """Which hashes are in a sorted array, in memory or in a file with the table that `index_runs` put beside it."""

    def __init__(self, runs: np.ndarray | Path):
        self._runs = runs
        self._table = np.memmap(_beside(runs), np.uint8, "r") if isinstance(runs, Path) else _filled(runs)
        self._bits = (8 * len(self._table)).bit_length() - 1

    def likely(self, hashes: np.ndarray) -> np.ndarray:
        """Indices of those hashes that may be known, ascending: of others about one in a hundred."""
        likely = np.arange(len(hashes))
        for bit in (_high_bits, _low_bits):
            place = bit(hashes[likely], self._bits)
            set_ = self._table[place >> np.uint64(3)] >> (place & np.uint64(7)).astype(np.uint8) & np.uint8(1)
            likely = likely[set_.astype(bool)]
        return likely

    def hold(self, asked: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Of each array of hashes, whether each one is known. The file is read once for all of them."""
        whole = np.concatenate([np.empty(0, np.uint64), *asked])
        order = np.argsort(whole)
        ordered, found = whole[order], np.zeros(len(whole), bool)
        for piece in _pieces_of(self._runs) if len(whole) else ():
            first, last = np.searchsorted(ordered, piece[0]), np.searchsorted(ordered, piece[-1], side="right")
            found[order[first:last]] = piece[np.searchsorted(piece, ordered[first:last])] == ordered[first:last]
        ends = np.cumsum([len(hashes) for hashes in asked])
        return [found[end - len(hashes):end] for hashes, end in zip(asked, ends, strict=True)]

def index_runs(runs: Path) -> None:
    """Write the table of bits of a file of sorted hashes beside it."""
    bits = _bits_for(runs.stat().st_size // 8)
    _fill(np.memmap(_beside(runs), np.uint8, "w+", shape=(2**bits // 8,)), bits, runs)


@lru_cache(maxsize=1)
def known_runs(path: Path) -> KnownRuns:
    """The runs of a file, opened once by each process."""
    return KnownRuns(path)


def _beside(runs: Path) -> Path:
    return runs.with_name(f"{runs.name}-table")


def _bits_for(runs: int) -> int:
    return min(_MOST_BITS, max(10, (16 * runs).bit_length()))


def _filled(runs: np.ndarray) -> np.ndarray:
    bits = _bits_for(len(runs))
    table = np.zeros(2**bits // 8, np.uint8)
    _fill(table, bits, runs)
    return table


def _fill(table: np.ndarray, bits: int, runs: np.ndarray | Path) -> None:
    for piece in _pieces_of(runs):
        for bit in (_high_bits, _low_bits):
            place = bit(piece, bits)
            np.bitwise_or.at(table, place >> np.uint64(3), np.uint8(1) << (place & np.uint64(7)).astype(np.uint8))


def _high_bits(hashes: np.ndarray, bits: int) -> np.ndarray:
    return hashes >> np.uint64(64 - bits)


def _low_bits(hashes: np.ndarray, bits: int) -> np.ndarray:
    return hashes & np.uint64(2**bits - 1)


def _pieces_of(runs: np.ndarray | Path) -> Iterator[np.ndarray]:
    if isinstance(runs, np.ndarray):
        yield from [runs] if len(runs) else []
        return
    with runs.open("rb") as stream:
        while len(piece := np.fromfile(stream, "<u8", _PIECE)):
            yield piece
