"""Which language a text is in: by its script, then by stop words, and where these say nothing by `py3langid`.

Stop words alone decide most texts in microseconds and say why. `py3langid` (Lui & Baldwin 2012) knows 97 languages from
4 MB of NumPy arrays; `lingua` is larger by two orders and no better on paragraphs.
"""

import re
from collections import Counter
from functools import cache
from typing import Any

SAMPLE_CHARACTERS = 2000
"""A language is told from the beginning of a text, so many characters long."""
_GLANCE = 400

STOP_WORDS = {
    "en": "the be to of and that have with is a in it this for",
    "de": "der die das und ist nicht ein eine zu den mit von sich auf für im dem auch",
    "fr": "le la les et est une des du que qui dans pas pour il elle sur avec au",
    "es": "el la los las y es una que de en por con para no su del se lo",
    "pt": "o os as e é uma que de em não para com do da no na se por",
    "it": "il lo gli la e è una che di per non con del della sono nel si",
    "nl": "de het een en van is dat niet te op zijn met voor die er aan",
    "sv": "och att det som en på är av för med den till inte har ett jag",
    "da": "og at det er en den til af ikke der som på med for et jeg",
    "pl": "i w na z się nie to jest że do jak co po od przez ale",
    "cs": "a se v na je že to s z do o i jako ale jsem by",
    "ro": "și în de la nu că este un o cu pe mai se din care pentru",
    "hu": "a az és hogy nem is egy van de meg csak ez volt mint",
    "fi": "ja on ei se että hän oli en mutta kun ovat joka mitä ole myös",
    "tr": "ve bir bu da de için ile ne çok olarak daha ben var gibi",
    "id": "yang dan di itu dengan untuk tidak ini dari dalam akan pada juga ke",
    "ru": "и в не на что я он с как это по но они к у из за от",
}
"""Common short words of the languages that are judged by theirs; English has those of Gopher and a few more."""

UNSPACED = frozenset({"zh", "ja", "th", "lo", "km", "my"})
"""Languages that are written without spaces between words."""

UNKNOWN = "und"
"""Language of a text without letters, as ISO 639 has it."""

# Latin letters are left to the stop words; a script that several languages share is that of the one most written in it
_SCRIPTS = (("ru", "Ѐ-ӿ"), ("ar", "؀-ۿݐ-ݿ"), ("ja", "぀-ヿ"), ("zh", "一-鿿㐀-䶿"), ("ko", "가-힣"), ("el", "Ͱ-Ͽ"),
            ("he", "֐-׿"), ("hi", "ऀ-ॿ"), ("bn", "ঀ-৿"), ("ta", "஀-௿"), ("th", "฀-๿"), ("lo", "຀-໿"), ("my", "က-႟"),
            ("km", "ក-៿"), ("ka", "Ⴀ-ჿ"), ("hy", "԰-֏"))
_NOT_LATIN = re.compile(r"[\u0370-\uffff]")
_WORD = re.compile(r"[^\W\d_]+")
_ENGLISH_TOO = frozenset(["a", "i", "o", "s", "do", "to", "on", "by", "an", "at", "die", "me", "no", "so", "in", "is",
                          "as", "us", "van", "was", "pro", "per", "met", "war", "man"])
_ALSO_ENGLISH = {"pcm": "en"}
"""What English without any stop word is taken for: Nigerian Pidgin."""
_SETS = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}
_TELLING = {language: words if language == "en" else words - _ENGLISH_TOO for language, words in _SETS.items()}
"""The stop words that tell a language from English: the rest are words of both."""


def language_of(text: str) -> str:
    """ISO 639-1 code of the language that the beginning of a text is in; `und` where it has no letters."""
    if len(_SETS["en"].intersection(text[:_GLANCE].lower().split())) >= 5:
        return "en"      # no other language has so many of them
    sample = text[:SAMPLE_CHARACTERS]
    if script := _script_of(sample):
        return script
    words = frozenset(_WORD.findall(sample.lower()))
    if not words:
        return UNKNOWN
    found = {language: len(words & known) for language, known in _TELLING.items()}
    best = max(found, key=lambda language: (found[language], language == "en"))
    if found[best] >= 2 or (best == "en" and found[best]):
        return best
    told = str(_identifier().classify(sample)[0])
    return _ALSO_ENGLISH.get(told, told)


def stop_words_of(text: str, language: str, enough: int) -> int | None:
    """Number of different stop words in a text, counted up to `enough`; None for a language without a list."""
    known = _SETS.get(language)
    if known is None:
        return None
    found: set[str] = set()
    for word in text.split():
        word = word.lower().strip(".,;:!?\"'()«»„“”")
        if word in known:
            found.add(word)
            if len(found) >= enough:
                break
    return len(found)


def _script_of(sample: str) -> str | None:
    """The language of the script that most letters are of, None for Latin ones."""
    if sample.isascii():
        return None
    other = len(_NOT_LATIN.findall(sample))
    if other * 3 < len(sample):
        letters = sum(map(str.isalpha, sample)) if other else 0
        if other * 2 < letters or not other:
            return None
    counts = Counter({language: len(re.findall(f"[{script}]", sample)) for language, script in _SCRIPTS})
    language, count = counts.most_common(1)[0]
    if language == "zh" and counts["ja"] * 10 > count:      # Japanese has Chinese characters between its own
        return "ja"
    return language if count else None


@cache
def _identifier() -> Any:
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    return LanguageIdentifier.from_model_file(MODEL_FILE)
