"""Whether an answer is one of those that count as right."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal

IsRight = Callable[[str, Sequence[str]], bool]
"""An answer and those that count as right to whether it is one of them."""

_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?:(?:[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)")
"""A decimal number with or without commas between thousands. A dash after a letter or a digit is no sign."""
_PIECE = re.compile(rf"(?P<number>{_NUMBER.pattern})|[^\W_]+|[+<>≠≤≥±×÷√^]|(?<=[<>!])=|(?<=\w)#")
"""What tells answers apart: numbers, words, and signs that are no punctuation."""


def exact_answer(answer: str, right: Sequence[str]) -> bool:
    """Whether its words, numbers and mathematical signs are those of a right one; where that has none, whether it is
    the same text."""
    wanted = {_told_apart(known) for known in right} - {""}
    return _told_apart(answer) in wanted or answer.strip() in {known.strip() for known in right}


def _told_apart(text: str) -> str:
    """The text without case, spacing and punctuation, equal numbers written alike: 1,200 and 1200.0 become 1200."""
    found = ""
    for piece in _PIECE.finditer(text):
        written = _canonical(_decimal(piece["number"])) if piece["number"] else piece[0].lower()
        found += " " if found[-1:].isdigit() and written[0].isdigit() else ""      # 1/2 and 1 2 are not 12
        found += written
    return found


def _canonical(number: Decimal) -> str:
    text = f"{number or Decimal():f}"      # no -0
    return text.rstrip("0").rstrip(".") if "." in text else text


def equal_number(answer: str, right: Sequence[str]) -> bool:
    """Whether its last number equals the last one of a right answer: 1,200 and 1200.0 are equal."""
    number = last_number(answer)
    return number is not None and any(number == last_number(known) for known in right)


def last_number(text: str) -> Decimal | None:
    """The last decimal number in a text."""
    found = _NUMBER.findall(text)
    return _decimal(found[-1]) if found else None


def _decimal(number: str) -> Decimal:
    return Decimal(number.replace(",", "").replace("−", "-"))
