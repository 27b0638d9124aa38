"""Removal of training text that shares long runs of words with held-out text (Brown et al. 2020, appendix C)."""

import re
from collections.abc import Iterable

_WORD = re.compile(r"\w+")


class HeldOut:
    """The n-grams of all held-out text. Texts of fewer than n words count as a whole, from half of n words on."""

    def __init__(self, texts: Iterable[str], ngram: int):
        self.ngram = ngram
        self._by_length: dict[int, set[int]] = {}
        for text in texts:
            words = _words(text)
            length = min(ngram, len(words))
            if length * 2 < ngram:
                continue      # such a short sentence may be written twice by chance
            self._by_length.setdefault(length, set()).update(_ngrams(words, length))

    def match(self, text: str) -> str | None:
        """The first run of words that the text shares with held-out text, or None."""
        words = _words(text)
        for length, known in self._by_length.items():
            for start, value in enumerate(_ngrams(words, length)):
                if value in known:
                    return " ".join(words[start:start + length])
        return None


def _words(text: str) -> list[str]:
    return _WORD.findall(text.lower())


def _ngrams(words: list[str], length: int) -> Iterable[int]:
    """Hashes of the n-grams; Python's string hash differs between processes but lives only inside this one."""
    return map(hash, zip(*(words[offset:] for offset in range(length)), strict=False))
