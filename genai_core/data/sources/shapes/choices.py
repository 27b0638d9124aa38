"""The choices of a multiple-choice problem and the right ones among them, in the ways that people keep them.

MMLU has a list `choices` and the number or letter of the right one, ARC texts with labels and an `answerKey`, HellaSwag
`endings` and a `label`; a csv file has a column for each letter.
"""

import json
import math
from string import ascii_uppercase
from typing import Any

from genai_core.data.sources.bad_rows import BadRow

CHOICES = ("choices", "options", "endings")
LETTERS = tuple(ascii_uppercase[:10])
RIGHT = ("answers", "answer", "answerKey", "label")
_SHOWN = 60


def plain_of(value: Any) -> str | None:
    """A text, or a number as one: answers and classes are often given as numbers."""
    if isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value)):
        return str(value).strip() or None
    return None


def has_choices(row: dict[str, Any]) -> bool:
    """Whether a row has choices and says which one is right."""
    listed = any(isinstance(_parsed(row.get(column)), list | dict) for column in CHOICES)
    lettered = all(row.get(letter) is not None for letter in LETTERS[:2])
    return (listed or lettered) and any(row.get(column) is not None for column in RIGHT)


def read_choices(row: dict[str, Any]) -> tuple[list[str], list[str]]:
    """The choices of a row and those of them that are right.

    Raises BadRow for fewer than two choices, for two equal ones, and for an answer that is none of them.
    """
    labels, values = _labels_and_values(row)
    choices = [text for text in map(plain_of, values) if text]
    if len(choices) < len(values):
        raise BadRow("a choice without a text; each choice is a text")
    if len(choices) < 2:
        raise BadRow(f"{len(choices) or 'no'} choice, where a multiple-choice problem has at least two")
    if twice := next((choice for choice in choices if choices.count(choice) > 1), ""):
        raise BadRow(f"two choices are both {twice[:_SHOWN]!r}; each must be another one")
    given = next(row[column] for column in RIGHT if row.get(column) is not None)
    right = [choices[_place(answer, choices, labels)] for answer in (given if isinstance(given, list) else [given])]
    if not right:
        raise BadRow("no right answer; give the text, the letter or the number from 0 of one of the choices")
    return choices, list(dict.fromkeys(right))


def _labels_and_values(row: dict[str, Any]) -> tuple[list[str | None], list[Any]]:
    """The labels by which the row itself calls its choices, where it does, and the choices."""
    listed = next((_parsed(row[column]) for column in CHOICES if row.get(column) is not None), None)
    if isinstance(listed, dict):
        texts, labels = listed.get("text"), listed.get("label")
        if not isinstance(texts, list) or not isinstance(labels, list) or len(texts) != len(labels):
            raise BadRow("choices with labels are {text: [...], label: [...]}, as many labels as texts")
        return [plain_of(label) for label in labels], texts
    if isinstance(listed, list):
        if listed and all(isinstance(choice, dict) for choice in listed):
            return [plain_of(choice.get("label")) for choice in listed], [choice.get("text") for choice in listed]
        return [], listed
    letters = [letter for letter in LETTERS if letter in row]
    while letters and plain_of(row[letters[-1]]) is None:      # a csv file has as many columns as its longest row
        letters.pop()
    return list(letters), [row[letter] for letter in letters]


def _place(answer: Any, choices: list[str], labels: list[str | None]) -> int:
    """Which of the choices an answer means, by its label, its text, its letter or its number from 0."""
    named = plain_of(answer)
    if named and named in labels:
        return labels.index(named)
    number = answer if isinstance(answer, int) and not isinstance(answer, bool) else None
    if isinstance(answer, float) and answer.is_integer():
        number = int(answer)
    places = {number} if number is not None else {choices.index(named)} if named in choices else set()
    if number is None and named and not labels:
        if named in LETTERS:
            places.add(LETTERS.index(named))
        elif named.isascii() and named.isdigit() and len(named) < 3:
            places.add(int(named))
    found = [place for place in sorted(places) if 0 <= place < len(choices)]
    shown = str(answer)[:_SHOWN]
    if not found:
        raise BadRow(f"the answer {shown!r} is none of the {len(choices)} choices; give the text, the letter or the "
                     "number from 0 of one of them")
    if len(found) > 1:
        raise BadRow(f"the answer {shown!r} is the text of one choice and stands for the place of another; give the "
                     "choices labels, as {text: [...], label: [...]}")
    return found[0]


def _parsed(value: Any) -> Any:
    """A cell of a table may hold its choices as JSON."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            return json.loads(value)
        except (ValueError, RecursionError):
            return value
    return value
