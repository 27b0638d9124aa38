"""Counting on bits per byte and on labels: compressors, n-grams, words."""

import lzma
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

RARE_WORDS_FROM = 1000
"""Number of training texts from which on words of fewer than five texts are left out."""


def xz_bits_per_byte(text: bytes) -> float:
    """Bits per byte of the text compressed by itself with xz at its strongest."""
    return 8 * len(lzma.compress(text, preset=9 | lzma.PRESET_EXTREME)) / max(1, len(text))


class ByteNgrams:
    """Interpolated byte n-gram model with Witten-Bell smoothing (Witten & Bell 1991, method C):

    p(b | h) = (c(h b) + t(h) · p(b | h')) / (c(h) + t(h)), with c counts, t(h) the number of different bytes seen after
    h, and h' the history without its first byte; the lowest order is uniform over 256 bytes.

    The counts of one order at a time are in memory, as sorted arrays of n-grams packed into 64 bits.
    """

    def __init__(self, order: int):
        if not 1 <= order <= 7:
            raise ValueError(f"order {order} does not fit into 64 bits; take 1 to 7")
        self.order = order

    def bits_per_byte(self, train: bytes, held_out: dict[str, bytes]) -> dict[str, float]:
        """Bits per byte of each held-out text under counts from `train`."""
        return {name: float(bits.mean()) for name, bits in self.bits(train, held_out).items()}

    def bits(self, train: bytes, held_out: dict[str, bytes]) -> dict[str, np.ndarray]:
        """Bits of each byte of each held-out text under counts from `train`."""
        train_codes, codes = _codes(train), {name: _codes(text) for name, text in held_out.items()}
        probabilities = {name: np.full(len(text), 1 / 256) for name, text in held_out.items()}
        for length in range(1, self.order + 1):
            grams, counts = _counts(_ngrams(train_codes, length))
            if not len(grams):      # the training text is shorter than this
                break
            starts = np.flatnonzero(np.concatenate([[True], np.diff(grams >> np.uint64(8)) > 0]))
            histories = grams[starts] >> np.uint64(8)
            totals = np.add.reduceat(counts, starts)
            kinds = np.diff(np.concatenate([starts, [len(grams)]]))
            for name, text in codes.items():
                wanted = _ngrams(text, length)
                count = _look_up(grams, counts, wanted)
                total = _look_up(histories, totals, wanted >> np.uint64(8))
                kind = _look_up(histories, kinds, wanted >> np.uint64(8))
                lower = probabilities[name][length - 1:]
                mixed = (count + kind * lower) / np.maximum(total + kind, 1)
                probabilities[name][length - 1:] = np.where(total > 0, mixed, lower)
        return {name: -np.log2(values) for name, values in probabilities.items()}


def _codes(text: bytes) -> np.ndarray:
    return np.frombuffer(text, dtype=np.uint8)


def _ngrams(codes: np.ndarray, length: int) -> np.ndarray:
    packed = np.zeros(max(0, len(codes) - length + 1), np.uint64)
    for offset in range(length):
        packed <<= np.uint64(8)
        np.bitwise_or(packed, codes[offset:offset + len(packed)], out=packed)
    return packed


def _counts(grams: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The different n-grams in order and how often each is there, as np.unique has them, which copies all of them
    twice where this sorts them in place."""
    grams.sort()
    first = np.flatnonzero(np.concatenate([[True], grams[1:] != grams[:-1]])[:len(grams)])
    return grams[first], np.diff(first, append=len(grams))


def _look_up(keys: np.ndarray, values: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The value of each wanted key, 0 where it is unknown."""
    place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[place] == wanted, values[place], 0)


def tfidf_accuracy(train_texts: list[str], train_labels: Sequence[Any], texts: list[str], labels: Sequence[Any]
                   ) -> float:
    """Accuracy of logistic regression on TF-IDF weights of words and word pairs."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    least = 5 if len(train_texts) >= RARE_WORDS_FROM else 1
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=least, max_features=100_000)
    try:
        weights = vectorizer.fit_transform(train_texts)
    except ValueError:      # no word that is left, as in a language without spaces: pairs of letters are counted
        vectorizer = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), sublinear_tf=True, max_features=100_000)
        weights = vectorizer.fit_transform(train_texts)
    model = LogisticRegression(C=10, max_iter=200).fit(weights, train_labels)
    return float(np.mean(model.predict(vectorizer.transform(texts)) == np.array(labels)))


def majority_accuracy(labels: Sequence[Any]) -> float:
    """Accuracy of always giving the most frequent label."""
    return max(Counter(labels).values()) / len(labels)
