"""Python code to complete: the next line, and the body of a function."""

import ast
import textwrap
import warnings
from dataclasses import dataclass
from typing import TypeVar

from tokenizers import Tokenizer

from genai_core.data.chat import END_OF_TEXT, token_id
from genai_core.inference.generate import generate
from genai_core.models.language_model import LanguageModel

CONTEXT_CHARACTERS = 3000
"""Most characters of a module before a line."""
SLOTS = 32

Item = TypeVar("Item")


@dataclass(frozen=True)
class Question:
    """Code to complete, which ends where a line does, and what people wrote next."""

    before: str
    expected: str


def next_lines(texts: list[str], count: int) -> list[Question]:
    """At most `count` lines of texts, at even distances over them; neither they nor the lines before them are blank."""
    places = []
    for number, text in enumerate(texts):
        position, previous = 0, ""
        for line in text.split("\n"):
            if line.strip() and previous.strip():
                places.append((number, position, line))
            position, previous = position + len(line) + 1, line
    questions = []
    for number, position, line in evenly(places, count):
        before = texts[number][max(0, position - CONTEXT_CHARACTERS):position]
        if position > CONTEXT_CHARACTERS:
            before = before.split("\n", 1)[1]
        questions.append(Question(before, line.rstrip()))
    return questions


def functions(texts: list[str], count: int) -> list[Question]:
    """At most `count` functions with a docstring, without their indentation: up to the docstring, and the rest."""
    found = []
    for text in texts:
        lines = text.split("\n")
        for node in ast.walk(_parse(text)):
            if isinstance(node, ast.FunctionDef) and len(node.body) > 1 and ast.get_docstring(node):
                whole = textwrap.dedent("\n".join(lines[node.lineno - 1:node.end_lineno])) + "\n"
                head = "\n".join(whole.split("\n")[:(node.body[0].end_lineno or 0) - node.lineno + 1]) + "\n"
                found.append(Question(head, whole.removeprefix(head)))
    return evenly(found, count)


def complete(model: LanguageModel, tokenizer: Tokenizer, prompts: list[str], tokens: int) -> list[str]:
    """Completion of each prompt by greedy decoding; of a prompt, as much of the end is read as there is room for."""
    end = token_id(tokenizer, END_OF_TEXT)
    room = model.context_length - tokens
    encoded = [encoding.ids[-room:] for encoding in tokenizer.encode_batch_fast(prompts, add_special_tokens=False)]
    if not encoded:
        return []
    return tokenizer.decode_batch(generate(model, encoded, tokens, {end}, pad_id=end, slots=SLOTS).unpadded())


def body(completion: str) -> str:
    """Body of a function in its completion: the lines before the first that is not indented, or all but the last, which
    is unfinished."""
    lines = completion.split("\n")
    for number, line in enumerate(lines):
        if line.strip() and not line[0].isspace():
            return "\n".join(lines[:number]) + "\n"
    return "\n".join(lines[:-1]) + "\n"


def parses(question: Question, completion: str) -> bool:
    """Whether the function with this completion is Python and has a body."""
    inside = body(completion)
    return bool(inside.strip()) and is_python(question.before + inside)


def is_python(text: str) -> bool:
    """Whether a text parses."""
    try:
        _parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):      # what ast.parse raises for text that is no code
        return False
    return True


def evenly(items: list[Item], count: int) -> list[Item]:
    """At most `count` of the items, at even distances."""
    return items if len(items) <= count else [items[number * len(items) // count] for number in range(count)]


def _parse(text: str) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")      # of escapes that mean nothing; they are Python all the same
        return ast.parse(text)
