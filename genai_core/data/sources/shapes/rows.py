"""The shapes in which people keep rows: recognised by their columns, and read as records of our tables."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from genai_core.config.data import Content, RowSource
from genai_core.data.sources.bad_rows import BadRow
from genai_core.data.sources.paths import HELD_OUT
from genai_core.data.sources.shapes.choices import CHOICES, LETTERS, RIGHT, has_choices, plain_of, read_choices
from genai_core.data.sources.shapes.messages import is_messages, is_shared_gpt, read_messages, said
from genai_core.data.sources.shapes.preferences import read_preference, read_prompt

Row = dict[str, Any]
Record = tuple[str, dict[str, Any]]

CONVERSATION = ("messages", "conversations", "conversation")
QUESTION = ("prompt", "question", "query")
ANSWER = ("answer", "completion", "response", "output")
_ALPACA_INPUT = ("input", "context")
_ALPACA_OUTPUT = ("output", "response")
SPLITS = {"train": "train", "training": "train", "testing": "test", "eval": "validation", **HELD_OUT}
MAX_CHARACTERS = 64 * 2**20
"""A longer text is refused: it is not one document."""
_STEM = (*QUESTION, "ctx")
"""Columns of the question of a multiple-choice problem; `ctx` is HellaSwag's."""
_SURROGATE = re.compile("[\ud800-\udfff]")


class Shape(NamedTuple):
    label: str
    content: Content
    uses: tuple[str, ...]
    """Columns that it may read, for the log."""
    fits: Callable[[Row], bool]
    read: Callable[[Row], Record]
    is_guessed: bool = True
    """Whether `content: auto` may take a row for it."""

    def describe(self, row: Row) -> str:
        return f"{self.label} ({', '.join(column for column in self.uses if column in row)})"


def has(row: Row, *columns: str) -> bool:
    return any(row.get(column) is not None for column in columns)


def first(row: Row, columns: tuple[str, ...]) -> Any:
    return next((row[column] for column in columns if row.get(column) is not None), None)


def _columns_of(row: Row) -> str:
    """The names of the columns, as many as a line holds."""
    named = " ".join(", ".join(map(str, row)).split())
    return (named if len(named) <= 300 else f"{named[:300]} …") or "no columns"


def text_of(row: Row, *columns: str) -> str:
    """The text in the first of these columns that is there. Raises BadRow where it is no text or an empty one."""
    value = first(row, columns)
    named = next((column for column in columns if column in row), columns[0])
    if not isinstance(value, str):
        raise BadRow(f"no text in column {named!r} (there are {_columns_of(row)}); set "
                     f"columns: {{{columns[0]}: NAME}}")
    if not value.strip():
        raise BadRow(f"the text in column {named!r} is empty")
    if len(value) > MAX_CHARACTERS:
        raise BadRow(f"the text in column {named!r} is longer than {MAX_CHARACTERS // 2**20} Mi characters")
    return value


def verdict(value: Any) -> float | None:
    """1 for an answer that people approved of, -1 for one they did not, None for anything else."""
    if isinstance(value, str):
        return {"true": 1.0, "1": 1.0, "false": -1.0, "0": -1.0, "-1": -1.0}.get(value.strip().lower())
    if isinstance(value, bool | int | float) and value in (0, 1, -1):
        return 1.0 if value == 1 else -1.0
    return None


def number_of(row: Row, column: str) -> float:
    try:
        value = float(row[column]) if not isinstance(row[column], bool) else math.nan
    except (TypeError, ValueError, KeyError, OverflowError):
        value = math.nan
    if not math.isfinite(value):
        raise BadRow(f"no number in column {column!r}")
    return value


def _messages_of(row: Row, last: str | None = "assistant") -> list[dict[str, str]]:
    messages = read_messages(first(row, CONVERSATION), system=row.get("system"), tools=row.get("tools"), last=last)
    if not any(message["role"] == "user" for message in messages):
        raise BadRow("a conversation in which the user says nothing")
    return messages


def _read_chat(row: Row) -> Record:
    return "chats", {"messages": _messages_of(row)}


def _read_alpaca(row: Row) -> Record:
    """Instruction and input are one message, a line apart; `history` holds earlier pairs of question and answer."""
    asked = text_of(row, "instruction")
    detail = first(row, _ALPACA_INPUT)
    history = row.get("history") or []
    messages = [message for turn in (history if isinstance(history, list) else [history]) for message in _pair(turn)]
    messages += said("user", f"{asked}\n{detail}" if isinstance(detail, str) and detail.strip() else asked)
    messages += said("assistant", text_of(row, *_ALPACA_OUTPUT))
    return "chats", {"messages": read_messages(messages, system=row.get("system"))}


def _pair(turn: Any) -> list[dict[str, str]]:
    if not isinstance(turn, list | tuple) or len(turn) != 2:
        raise BadRow("`history` is a list of pairs of question and answer")
    return said("user", turn[0]) + said("assistant", turn[1])


def _read_answered(row: Row) -> Record:
    messages = read_prompt(first(row, QUESTION), row.get("system"), row.get("tools"))
    answer = first(row, ANSWER)
    answers = read_messages(answer) if is_messages(answer) else said("assistant", text_of(row, *ANSWER))
    return "chats", {"messages": read_messages([*messages, *answers])}


def _read_verdict(row: Row) -> Record:
    messages = _messages_of(row) if has(row, *CONVERSATION) else _read_answered(row)[1]["messages"]
    rating = verdict(row.get("label"))
    if rating is None:
        raise BadRow("no verdict in column 'label' (true or false)")
    return "ratings", {"messages": messages, "rating": rating, "raters": 1}


def _read_rating(row: Row) -> Record:
    subject = {"messages": _messages_of(row)} if has(row, *CONVERSATION) else {"text": text_of(row, "text")}
    raters = int(number_of(row, "raters")) if has(row, "raters") else 1
    if not 1 <= raters < 2**31:
        raise BadRow("no number of people in column 'raters'")
    return "ratings", {**subject, "rating": number_of(row, "rating"), "raters": raters}


def _read_multiple_choice(row: Row) -> Record:
    if not has_choices(row):
        raise BadRow("no choices with the right one (choices and answer), as the rows before it have")
    choices, right = read_choices(row)
    return "problems", {"prompt": text_of(row, *_STEM), "answers": right, "choices": choices}


def _read_problem(row: Row) -> Record:
    if has_choices(row):
        return _read_multiple_choice(row)
    given = row["answers"] if has(row, "answers") else first(row, ANSWER)
    answers = [plain_of(answer) for answer in (given if isinstance(given, list) else [given])]
    if not answers or None in answers:
        raise BadRow("no answer in column 'answers' (a text or a list of texts); set columns: {answers: NAME}")
    return "problems", {"prompt": text_of(row, *QUESTION), "answers": answers}


def _read_pair(row: Row) -> Record:
    if isinstance(row.get("translation"), dict) and len(row["translation"]) == 2:
        row = dict(zip(("source", "target"), row["translation"].values(), strict=True))
    return "pairs", {"source_text": text_of(row, "source"), "target_text": text_of(row, "target")}


def _read_labelled(row: Row) -> Record:
    label = plain_of(row.get("label"))
    if label is None:
        raise BadRow("no class in column 'label'; set columns: {label: NAME}")
    return "documents", {"text": text_of(row, "text"), "label": label}


def _read_document(row: Row) -> Record:
    return "documents", {"text": text_of(row, "text")}


def _is_alpaca(row: Row) -> bool:
    return has(row, "instruction") and has(row, *_ALPACA_OUTPUT)


def _is_answered(row: Row) -> bool:
    return has(row, *QUESTION) and has(row, *ANSWER)


def _is_pair(row: Row) -> bool:
    return isinstance(row.get("translation"), dict) or (has(row, "source") and has(row, "target"))


_TALK = (*CONVERSATION, "system", "tools")
_ASKED = (*QUESTION, *ANSWER)
SHAPES = (
    Shape("preferences", "preferences", (*_TALK, *QUESTION, "instruction", "input", "chosen", "rejected"),
          lambda row: "chosen" in row and "rejected" in row, read_preference),
    Shape("multiple-choice problems", "problems", (*_STEM, *CHOICES, *LETTERS, *RIGHT),
          lambda row: has(row, *_STEM) and has_choices(row), _read_multiple_choice),
    Shape("conversations with a verdict (KTO)", "ratings", (*_TALK, "label"),
          lambda row: has(row, *CONVERSATION) and verdict(row.get("label")) is not None, _read_verdict),
    Shape("answers with a verdict (KTO)", "ratings", (*_ASKED, "label"),
          lambda row: _is_answered(row) and verdict(row.get("label")) is not None, _read_verdict),
    Shape("rated conversations", "ratings", (*_TALK, "rating", "raters"),
          lambda row: has(row, *CONVERSATION) and has(row, "rating"), _read_rating),
    Shape("ShareGPT conversations", "chats", _TALK,
          lambda row: is_shared_gpt(first(row, CONVERSATION)), _read_chat),
    Shape("chat messages", "chats", _TALK, lambda row: has(row, *CONVERSATION), _read_chat),
    Shape("Alpaca rows", "chats", ("instruction", *_ALPACA_INPUT, "output", "response", "system", "history"),
          _is_alpaca, _read_alpaca),
    Shape("problems with their right answers", "problems", (*QUESTION, "answers"),
          lambda row: has(row, *QUESTION) and has(row, "answers"), _read_problem),
    Shape("problems with their right answer", "problems", _ASKED, _is_answered, _read_problem, is_guessed=False),
    Shape("questions and answers", "chats", (*_ASKED, "system", "tools"), _is_answered, _read_answered),
    Shape("pairs of texts", "pairs", ("source", "target", "translation"), _is_pair, _read_pair),
    Shape("rated texts", "ratings", ("text", "rating", "raters"),
          lambda row: has(row, "text") and has(row, "rating"), _read_rating),
    Shape("labelled texts", "labelled", ("text", "label"),
          lambda row: has(row, "text") and plain_of(row.get("label")) is not None, _read_labelled),
    Shape("texts", "documents", ("text",), lambda row: "text" in row, _read_document),
)

_NEEDED = {
    "auto": "a text (text), messages or conversations, instruction and output, a question and an answer (prompt, "
            "answer), chosen and rejected, or source and target",
    "documents": "text", "labelled": "text and label", "pairs": "source and target",
    "problems": "prompt and answers, or prompt, choices and answer",
    "chats": "messages, conversations, instruction and output, or prompt and answer",
    "preferences": "chosen and rejected, and a prompt unless they hold it",
    "ratings": "text or messages and a number (rating), or an answer and a verdict (messages and label)",
}
ROW_KEYS = frozenset(column for shape in SHAPES for column in shape.uses)


def renamed(row: Any, source: RowSource) -> Row:
    """The row under our names of the columns that the source names."""
    if not isinstance(row, dict):
        raise BadRow("a row is an object with columns, for example {\"text\": ...}")
    if not source.columns:
        return row
    absent = [theirs for theirs in source.columns.values() if theirs not in row]
    if absent:
        raise BadRow(f"no column {absent[0]!r}, which `columns` names (there are {_columns_of(row)})")
    taken = set(source.columns.values())
    rest = {column: value for column, value in row.items() if column not in taken}
    return rest | {ours: row[theirs] for ours, theirs in source.columns.items()}


def recognise(row: Row, content: Content) -> Shape:
    """The shape of a row. Raises BadRow, with the columns that the kind of content needs, for any other."""
    for shape in SHAPES:
        if (shape.content == content or (content == "auto" and shape.is_guessed)) and shape.fits(row):
            return shape
    wanted = "columns of a known shape" if content == "auto" else f"columns of {content}"
    raise BadRow(f"no {wanted}: {_NEEDED[content]} (there are {_columns_of(row)}); "
                 "set `columns` where they are called otherwise")


def read_row(row: Row, shape: Shape, split_is_declared: bool) -> Record:
    """The record of a row, with its split where a column says one."""
    if any(row.get(column) for column in ("images", "videos", "audios")):
        raise BadRow("a row with images or sounds, which nothing here learns")
    table, record = shape.read(row)
    named = row.get("split")
    split = SPLITS.get(str(named).strip().lower())
    if split:
        record["split"] = split
    elif split_is_declared:
        raise BadRow(f"the split is {str(named)[:40]!r}; there are train, validation and test")
    return table, repaired(record)


def repaired(value: Any) -> Any:
    """`value` with lone surrogates, which no UTF-8 can hold, replaced by U+FFFD in all its texts."""
    if isinstance(value, str):
        return value if value.isascii() else _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {key: repaired(inner) for key, inner in value.items()}
    return [repaired(inner) for inner in value] if isinstance(value, list) else value
