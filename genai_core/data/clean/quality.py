"""Quality rules for documents, after Gopher (Rae et al. 2021, table A1) and C4 (Raffel et al. 2020, section 2.2).

Each rule gives the reason for removal or None; the first reason counts. The rules were made for English: in other
languages stop words are those of the language where there is a list, phrases of English web pages are not looked for,
and text written without spaces is judged by its characters.
"""

from collections import Counter
from collections.abc import Sequence
from operator import mul

from genai_core.config.data import CleanConfig
from genai_core.data.clean.language import UNSPACED, language_of, stop_words_of

_BOILERPLATE = ("lorem ipsum", "enable javascript", "javascript is disabled", "cookie policy", "terms of use")
CHARACTERS_A_WORD = 2
"""Of text without spaces so many characters count as a word: Chinese words have 1.5 to 2."""


def reason_to_remove(text: str, config: CleanConfig, language: str | None = None) -> str | None:
    """Name of the first rule that a document breaks; `language` as `language_of` gives it."""
    language = language or language_of(text)
    words = text.split()
    if language in UNSPACED:
        return _unspaced("".join(words), text, config) or _markup(text) or _repeated_lines(text, config)
    return (_length(len(words), config) or _words(words, text, language, config) or _markup(text)
            or _boilerplate(text, language) or _repeated_lines(text, config) or _repeated_phrase(words, config))


def _length(words: int, config: CleanConfig) -> str | None:
    if words < max(config.min_words, 1):
        return "too_few_words"
    return "too_many_words" if words > config.max_words else None


def _words(words: list[str], text: str, language: str, config: CleanConfig) -> str | None:
    mean_length = sum(map(len, words)) / len(words)
    stop_words = stop_words_of(text, language, config.min_stop_words)
    # bounds on word lengths hold for languages like those that there are lists for; others may join words or vowels
    if stop_words is not None and not config.min_mean_word_length <= mean_length <= config.max_mean_word_length:
        return "unusual_word_length"
    if _symbols(text) / len(words) > config.max_symbol_ratio:
        return "too_many_symbols"
    if (sum(map(str.isalpha, words)) / len(words) < config.min_alphabetic_ratio      # most words are letters throughout
            and sum(any(map(str.isalpha, word)) for word in words) / len(words) < config.min_alphabetic_ratio):
        return "too_few_letters"
    if stop_words is not None and stop_words < config.min_stop_words:
        return "no_stop_words"
    return None


def _unspaced(characters: str, text: str, config: CleanConfig) -> str | None:
    words = len(characters) / CHARACTERS_A_WORD
    if reason := _length(int(words), config):
        return reason
    if _symbols(text) / words > config.max_symbol_ratio:
        return "too_many_symbols"
    if sum(map(str.isalpha, characters)) / len(characters) < config.min_alphabetic_ratio:
        return "too_few_letters"
    return "repeated_phrase" if _share_of_top_ngram(characters, 6) > config.max_top_ngram_ratio else None


def _symbols(text: str) -> int:
    return text.count("#") + text.count("...") + text.count("…")


def _markup(text: str) -> str | None:
    return "curly_brackets" if "{" in text and "}" in text else None


def _boilerplate(text: str, language: str) -> str | None:
    lower = text.lower() if language == "en" else ""
    return "boilerplate" if any(phrase in lower for phrase in _BOILERPLATE) else None


def _repeated_lines(text: str, config: CleanConfig) -> str | None:
    if text.count("\n") < 3:
        return None
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    repeated = len(lines) > 3 and 1 - len(set(lines)) / len(lines) > config.max_duplicate_line_ratio
    return "repeated_lines" if repeated else None


def _repeated_phrase(words: list[str], config: CleanConfig) -> str | None:
    if len(words) < 12:
        return None
    # a phrase of three words has at most three times the characters of one of them, wherever that one stands:
    # counting words, at a quarter of the cost, spares nearly all texts the counting of phrases
    counts = Counter(words)
    possible = max(map(mul, map(len, counts), counts.values()))
    if 3 * possible <= config.max_top_ngram_ratio * sum(map(len, words)):
        return None
    return "repeated_phrase" if _share_of_top_ngram(words, 3) > config.max_top_ngram_ratio else None


def _share_of_top_ngram(parts: Sequence[str], length: int) -> float:
    """Share of all characters that belong to the most frequent n-gram of `parts`, if it occurs more than twice."""
    ngrams = Counter(zip(*(parts[offset:] for offset in range(length)), strict=False))
    if not ngrams:
        return 0.0
    (top, count), = ngrams.most_common(1)
    return count * sum(map(len, top)) / sum(map(len, parts)) if count > 2 else 0.0
