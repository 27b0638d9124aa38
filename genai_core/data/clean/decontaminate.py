"""Removal of training text that shares long runs of words with held-out text (Brown et al. 2020, appendix C).

A run is of 13 words by default. In scripts without spaces each letter is a word of its own (words.py), and two of them
count as one here: Chinese words have 1.5 to 2 characters, so a run is of 26 characters there. Thirteen of them are one
clause, such as a set phrase or a headline, which people write twice; 13 English words are some 65 letters, a sentence.
Of pairs of characters only those would be found that begin in step with the held-out text.

The hashes of all held-out runs lie sorted in one file. A bit table of fixed size in memory tells at once that most runs
are none of them; the few that pass are looked up in the file, piece by piece, so that memory does not grow with it.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from genai_core.data.clean.runs import different
from genai_core.data.clean.words import WORD, Words, hash_runs, hash_words, words_left

_MOST_BITS = 28
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
    shared: dict[int, tuple[int, int]] = {}
    for length, hashes in hash_runs(words, _longest(words, ngram)):
        if length < _shortest(ngram):
            continue
        places = known.places(hashes)
        places = places[left[places] >= length]      # a run does not cross into the next text
        texts, first = np.unique(np.searchsorted(words.bounds, places, side="right") - 1, return_index=True)
        for text, place in zip(texts.tolist(), places[first].tolist(), strict=True):
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
    """Which hashes are in a sorted array, in memory or in a file."""

    def __init__(self, runs: np.ndarray | Path):
        self._runs = runs
        size = runs.stat().st_size // 8 if isinstance(runs, Path) else len(runs)
        self.bits = min(_MOST_BITS, max(10, (16 * size).bit_length()))
        self.table = np.zeros(2**self.bits // 8, np.uint8)
        for piece in self._pieces():
            place = piece >> np.uint64(64 - self.bits)
            np.bitwise_or.at(self.table, place >> np.uint64(3), np.uint8(1) << (place & np.uint64(7)).astype(np.uint8))

    def places(self, hashes: np.ndarray) -> np.ndarray:
        """Indices of those hashes that are known, in ascending order."""
        place = hashes >> np.uint64(64 - self.bits)
        bit = self.table[place >> np.uint64(3)] >> (place & np.uint64(7)).astype(np.uint8) & np.uint8(1)
        likely = np.flatnonzero(bit)
        found = np.zeros(len(likely), bool)
        asked = hashes[likely]
        for piece in self._pieces() if len(likely) else ():
            found |= piece[np.searchsorted(piece, asked).clip(max=len(piece) - 1)] == asked
        return likely[found]

    def _pieces(self) -> Iterator[np.ndarray]:
        if isinstance(self._runs, np.ndarray):
            yield from [self._runs] if len(self._runs) else []
            return
        with self._runs.open("rb") as stream:
            while len(piece := np.fromfile(stream, "<u8", _PIECE)):
                yield piece


@lru_cache(maxsize=1)
def known_runs(path: Path) -> KnownRuns:
    """The runs of a file, read once by each process."""
    return KnownRuns(path)
