"""Cutting long documents into pieces, where a source has too few documents to hold any out whole."""

import re

LONGEST_PIECE = 4000
"""Characters of a piece of a source with plenty of text: a page or two."""
SHORTEST_PIECE = 200
"""Characters of a piece of a source with hardly any: a paragraph."""
PIECES = 100
"""Number of pieces that a source is cut into where its text suffices."""

_PARAGRAPH_END = re.compile(r"\n[ \t\r]*\n\s*")
_SENTENCE_END = re.compile(r"(?:[.!?…][\"'”’»)\]]*\s+|[。！？؟।]+[」』”]?\s*|\n)")


def piece_length(characters: int) -> int:
    """Length of the pieces that a source of so many characters is cut into."""
    return min(LONGEST_PIECE, max(SHORTEST_PIECE, characters // PIECES))


def cut(text: str, length: int) -> list[str]:
    """Pieces of about `length` characters, at most half more, that make the text again when joined.

    They end at the last paragraph's end that fits, or else at the last sentence's, the last space, or anywhere.
    """
    pieces = []
    start = 0
    while len(text) - start > length * 3 // 2:
        end = _last_end(_PARAGRAPH_END, text, start, length) or _last_end(_SENTENCE_END, text, start, length)
        end = end or text.rfind(" ", start + length // 2, start + length) + 1 or start + length
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def _last_end(pattern: re.Pattern[str], text: str, start: int, length: int) -> int | None:
    """Where the last match of a pattern in the second half of a piece ends."""
    ends = [match.end() for match in pattern.finditer(text, start + length // 2, start + length)]
    return ends[-1] if ends else None
