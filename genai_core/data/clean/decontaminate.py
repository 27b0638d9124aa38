"""Removal of training text that shares long runs of words with held-out text (Brown et al. 2020, appendix C).

The hashes of all held-out runs lie sorted in one file. A bit table of fixed size in memory tells at once that most runs
are none of them; the few that pass are looked up in the file, piece by piece, so that memory does not grow with it.
"""

import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np

from genai_core.data.clean.runs import different
from genai_core.data.clean.words import Words, hash_runs, hash_words, words_left

_WORD = re.compile(r"\w+")
_MOST_BITS = 28
_PIECE = 2**20


TEMPLATE_TEXTS = 3
"""Held-out texts that may share a run before it counts as the wording of questions, which gives none of them away."""


def held_out_runs(texts: Sequence[str], ngram: int, templates: bool = False) -> np.ndarray:
    """Sorted, different hashes of the runs of `ngram` words of texts; of a shorter text the whole, from half of `ngram`
    words on. A shorter sentence may be written twice by chance.

    With `templates`, runs that more than TEMPLATE_TEXTS of the texts have are left out: questions begin alike.
    """
    words = hash_words(texts)
    left = words_left(words)
    whole = np.zeros(len(left), bool)      # at the first word of each text
    whole[words.bounds[:-1][np.diff(words.bounds) > 0]] = True
    found, places = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    for length, hashes in hash_runs(words, ngram):
        if length == ngram:
            at = np.flatnonzero(left[:len(hashes)] >= ngram)
        elif length in _lengths(ngram):
            at = np.flatnonzero(whole[:len(hashes)] & (left[:len(hashes)] == length))
        else:
            continue
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
    for length, hashes in hash_runs(words, ngram):
        if length not in _lengths(ngram):
            continue
        places = known.places(hashes)
        places = places[left[places] >= length]      # a run does not cross into the next text
        texts, first = np.unique(np.searchsorted(words.bounds, places, side="right") - 1, return_index=True)
        for text, place in zip(texts.tolist(), places[first].tolist(), strict=True):
            shared.setdefault(text, (place - int(words.bounds[text]), length))
    return shared


def run_of_words(text: str, first: int, length: int) -> str:
    """A run of words of a text, as people may read it."""
    return " ".join(_WORD.findall(text.lower())[first:first + length])


def _lengths(ngram: int) -> range:
    return range((ngram + 1) // 2, ngram + 1)


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
