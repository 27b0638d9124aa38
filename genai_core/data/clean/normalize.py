"""Unicode repair, markup removal and the undoing of WikiText's tokenised spacing."""

import re
import warnings

import ftfy
from bs4 import BeautifulSoup, MarkupResemblesLocatorWarning

_TAG = re.compile(r"<(?:/?[a-zA-Z][a-zA-Z0-9]*)(?:\s[^<>]*)?/?>")
_BREAK = re.compile(r"\s*<\s*(?:br|p|/p|div|/div|li|/li|tr|/tr|h[1-6]|/h[1-6])\b[^<>]*>\s*", re.IGNORECASE)
_TRAILING_SPACE = re.compile(r"[ \t\u00a0]+(?=\n|$)")
_SPACES = re.compile(r"[ \t\u00a0]{2,}")
_BLANK_LINES = re.compile(r"\n{3,}")

_HEADING = re.compile(r"^ ?((?:= )+)(.+?)((?: =)+) ?$", re.MULTILINE)
_JOINED = re.compile(r" @([-,.])@ ")
_NO_SPACE_BEFORE = re.compile(r" +([,.;:!?%)\]}]|'(?:s|t|re|ve|ll|d|m)\b|n't\b)")
_NO_SPACE_AFTER = re.compile(r"([(\[{$£€#]) +")
_QUOTED = re.compile(r'" ([^"\n]*?) "')
_SINGLE_QUOTED = re.compile(r"(?<= )' ([^'\n]*?) '(?= |$|[,.;:!?])", re.MULTILINE)
_SPACED_SLASH = re.compile(r" (/|–) (?=\d)")


def normalize(text: str) -> str:
    """Repaired Unicode (ftfy, NFC), no HTML markup, single spaces, at most one blank line in a row."""
    if _TAG.search(text):
        text = strip_markup(text)
    text = ftfy.fix_text(text, normalization="NFC")
    text = _SPACES.sub(" ", _TRAILING_SPACE.sub("", text))
    return _BLANK_LINES.sub("\n\n", text).strip()


def strip_markup(text: str) -> str:
    """The text of an HTML fragment; block elements and line breaks become ends of lines."""
    text = _BREAK.sub("\n", text)
    if not _TAG.search(text):
        return text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MarkupResemblesLocatorWarning)
        soup = BeautifulSoup(text, "html.parser")
    for invisible in soup(["script", "style", "head"]):
        invisible.decompose()
    return soup.get_text()


def detokenize_wikitext(text: str) -> str:
    """WikiText as it was written: ` @-@ ` is a hyphen, punctuation touches its word, ` = Title = ` is a heading."""
    text = _JOINED.sub(r"\1", text)
    text = _QUOTED.sub(r'"\1"', text)
    text = _SINGLE_QUOTED.sub(r"'\1'", text)
    text = _NO_SPACE_AFTER.sub(r"\1", _NO_SPACE_BEFORE.sub(r"\1", text))
    text = _SPACED_SLASH.sub(r"\1", text)
    text = _HEADING.sub(lambda match: "#" * match.group(1).count("=") + " " + match.group(2), text)
    return "\n".join(line.strip() for line in text.split("\n"))
