"""Quality rules for documents, after Gopher (Rae et al. 2021, table A1) and C4 (Raffel et al. 2020, section 2.2).

Each rule gives the reason for removal or None; the first reason counts.
"""

import re
from collections import Counter

from genai_core.config.data import CleanConfig

STOP_WORDS = frozenset(["the", "be", "to", "of", "and", "that", "have", "with", "is", "a", "in", "it", "this", "for"])
_BOILERPLATE = ("lorem ipsum", "enable javascript", "javascript is disabled", "cookie policy", "terms of use")
_WORD = re.compile(r"\S+")


def reason_to_remove(text: str, config: CleanConfig) -> str | None:
    words = _WORD.findall(text)
    return (_length(words, config) or _words(words, text, config) or _boilerplate(text)
            or _repetition(words, text, config))


def _length(words: list[str], config: CleanConfig) -> str | None:
    if len(words) < config.min_words:
        return "too_few_words"
    return "too_many_words" if len(words) > config.max_words else None


def _words(words: list[str], text: str, config: CleanConfig) -> str | None:
    if not words:
        return "too_few_words"
    mean_length = sum(map(len, words)) / len(words)
    if not config.min_mean_word_length <= mean_length <= config.max_mean_word_length:
        return "unusual_word_length"
    if (text.count("#") + text.count("...") + text.count("…")) / len(words) > config.max_symbol_ratio:
        return "too_many_symbols"
    if sum(any(character.isalpha() for character in word) for word in words) / len(words) < config.min_alphabetic_ratio:
        return "too_few_letters"
    if len(STOP_WORDS.intersection(word.lower().strip(".,;:!?\"'()") for word in words)) < config.min_stop_words:
        return "no_stop_words"
    return None


def _boilerplate(text: str) -> str | None:
    if "{" in text and "}" in text:
        return "curly_brackets"
    lower = text.lower()
    return "boilerplate" if any(phrase in lower for phrase in _BOILERPLATE) else None


def _repetition(words: list[str], text: str, config: CleanConfig) -> str | None:
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    if len(lines) > 3 and 1 - len(set(lines)) / len(lines) > config.max_duplicate_line_ratio:
        return "repeated_lines"
    if len(words) >= 12:
        (top, count), = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)
        if count > 2 and count * sum(map(len, top)) / sum(map(len, words)) > config.max_top_ngram_ratio:
            return "repeated_phrase"
    return None
