"""Whether an answer is one of those that count as right."""

import re
from collections.abc import Callable, Sequence
from decimal import Decimal

IsRight = Callable[[str, Sequence[str]], bool]
"""An answer and those that count as right to whether it is one of them."""

_NUMBER = re.compile(r"(?<![\w.])[-+−]?(?>(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|\.[0-9]+)"
                     r"(?:[eE][-+]?[0-9]{1,3}(?![0-9]))?(?![eE][-+]?[0-9])")
"""A decimal number with or without commas between thousands. A dash after a letter or a digit is no sign. An
exponent has three digits at most, since numbers are written out."""
_ENDS = r"(?:(?<=[\d)])|(?<=(?<![^\W\d_])[^\W\d_]))"
_ENDS_BEFORE_SPACE = r"(?:(?<=[\d)] )|(?<=(?<![^\W\d_])[^\W\d_] ))"
_BEGINS = r"[-−+]?(?:[\d(.√]|[^\W\d_](?![^\W\d_])|[^\W\d_]+\()"
"""Where what one calculates with ends and begins: a number, a single letter, brackets, or a function before them."""
_BETWEEN = rf"(?:{_ENDS}(?:[-−–/]|\*+)(?={_BEGINS})|{_ENDS_BEFORE_SPACE}(?:[-−–/]|\*+)(?= {_BEGINS}))"
_BEFORE = r"(?<![\w)\]}.])[-−](?=[^\W\d_](?![^\W\d_])|[(√])"
_AFTER = rf"{_ENDS}%|{_ENDS_BEFORE_SPACE}%"
"""Signs that are punctuation elsewhere: 5-3, x / y and 2*3, but AC/DC and **5**; -x; 50 %."""
_PIECE = re.compile(rf"(?P<number>{_NUMBER.pattern})|[^\W_]+|!=|[<>]=|=+|[+<>≠≤≥±×÷√^]|(?<=\w)#"
                    rf"|{_BETWEEN}|{_BEFORE}|{_AFTER}")
"""What tells answers apart: numbers, words, and signs that are no punctuation."""
_ALIKE = {"!=": "≠", "<=": "≤", ">=": "≥", "==": "=", "−": "-", "–": "-"}
"""Signs that are another one, written otherwise."""


def exact_answer(answer: str, right: Sequence[str]) -> bool:
    """Whether its words, numbers and mathematical signs are those of a right one; where that has none, whether it is
    the same text. What is also punctuation, - / and *, is a sign where numbers or single letters stand around it."""
    wanted = {_told_apart(known) for known in right} - {""}
    return _told_apart(answer) in wanted or answer.strip() in {known.strip() for known in right}


def _told_apart(text: str) -> str:
    """The text without case, spacing and punctuation, equal numbers written alike: 1,200 and 1200.0 become 1200."""
    found = ""
    for piece in _PIECE.finditer(re.sub(r"[^\S\n]+", " ", text)):
        number = piece["number"]
        written = _canonical(_decimal(number)) if number else _ALIKE.get(piece[0], piece[0].lower())
        apart = found[-1:].isdigit() and (number or written[0].isdigit())
        found += " " if apart else ""      # 1 2 is not 12, nor 5, -3 the same as 5-3
        found += written
    return found.strip("=")      # "= 5" is 5


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
