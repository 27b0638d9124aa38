"""Examples of a task: records as questions with the answers that count as right, in the words of its templates."""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.config.tasks import TEMPLATE_FIELDS, Lesson, Task, worded
from genai_core.data.chat import Chat, Message
from genai_core.data.instruction.judgements import Subject
from genai_core.data.shards.tables import is_of, iterate_table

TABLES = {"documents": "documents", "labelled": "documents", "pairs": "pairs", "problems": "problems", "chats": "chats",
          "preferences": "preferences", "ratings": "ratings"}
"""Table that the records of each kind of content are in."""
LEAST_CONTINUATION = 5
"""Words below which a continuation is too short to learn from."""


@dataclass(frozen=True)
class Example:
    """One question of a task."""

    asked: Chat
    """The messages up to the user's last one."""
    answer: str
    """What the assistant is to say."""
    answers: tuple[str, ...]
    """Every answer that counts as right."""
    subject: str
    """What is asked about, without the wording around it."""
    continues: bool = False
    """Whether the answer goes on with the subject, so that the two are one text."""
    choices: tuple[str, ...] = ()
    """Of a multiple-choice problem, what the answer is to be chosen from."""

    @property
    def chat(self) -> Chat:
        return [*self.asked, {"role": "assistant", "content": self.answer}]

    def answered(self, answer: str) -> Subject:
        """What a reward model is to score: the text that an answer makes with its subject, or the conversation."""
        if self.continues:
            return f"{self.subject} {answer}"
        return [*self.asked, {"role": "assistant", "content": answer}]


def examples_of(lesson: Lesson, cleaned: Path, split: str) -> list[Example]:
    """The examples of a split, in the order of the records."""
    return list(iterate_examples(lesson, cleaned, split))


def iterate_examples(lesson: Lesson, cleaned: Path, split: str) -> Iterator[Example]:
    """The same, one after the other."""
    def rows() -> Iterator[dict[str, Any]]:
        table = iterate_table(cleaned, TABLES[lesson.content], split=split)
        return (row for row in table if is_of(row, lesson.sources))

    taken = _well_rated(rows) if lesson.content == "ratings" else rows()
    for row in taken:
        yield from _examples(lesson, row)


def _well_rated(rows: Callable[[], Iterator[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
    """The conversations that are rated above the mean of their source, read twice."""
    by_source: dict[str, list[float]] = {}
    for row in rows():
        if row["messages"]:
            by_source.setdefault(row["source"], []).append(row["rating"])
    means = {source: sum(ratings) / len(ratings) for source, ratings in by_source.items()}
    return (row for row in rows() if row["messages"] and row["rating"] > means[row["source"]])


def questions_of(task: Lesson, cleaned: Path, split: str) -> list[Example]:
    """The examples of a split, each question, with its choices, once with every answer that any record gives it."""
    by_question: dict[str, Example] = {}
    for example in examples_of(task, cleaned, split):
        key = repr((example.asked, example.choices))      # many multiple-choice problems ask "which of these is true?"
        known = by_question.setdefault(key, example)
        more = tuple(answer for answer in example.answers if answer not in known.answers)
        by_question[key] = replace(known, answers=known.answers + more)
    return list(by_question.values())


def prompts_of(tasks: Mapping[str, Lesson], names: tuple[str, ...], cleaned: Path, split: str, seed: int
               ) -> list[tuple[str, Example]]:
    """The questions of some tasks, each with the name of its task, shuffled together."""
    prompts = [(name, example) for name in names for example in questions_of(tasks[name], cleaned, split)]
    return [prompts[index] for index in np.random.default_rng(seed).permutation(len(prompts))]


def plain_question(task: Task, example: Example) -> str:
    """The question for a model that has seen no chats, which answers with what comes next."""
    name = (*TEMPLATE_FIELDS[task.content], "")[0]
    if task.plain_prompt:
        return worded(task.plain_prompt, {name: example.subject}, name)
    if task.content == "documents":
        return example.subject
    if task.content == "problems":
        return f"Question: {example.subject}\nAnswer:"
    if task.content in ("labelled", "pairs"):
        return f"{example.subject}\n{'Label' if task.content == 'labelled' else 'Answer'}:"
    return plain_conversation(example.asked)


def plain_conversation(asked: Chat) -> str:
    """A conversation for a model that has seen none, which answers with what comes next."""
    turns = [f"{message['role'].capitalize()}: {message['content']}" for message in asked]
    return "\n".join([*turns, "Assistant:"])


def _examples(lesson: Lesson, row: dict[str, Any]) -> Iterator[Example]:
    if lesson.content in ("chats", "preferences", "ratings"):
        messages = row["prompt"] + row["chosen"] if lesson.content == "preferences" else row["messages"]
        *asked, last = messages
        if last["role"] == "assistant" and asked:
            yield Example(asked, last["content"], (last["content"],), asked[-1]["content"])
        return
    found = _fields(lesson, row)
    if found is None:
        return
    (question, subject), (answer, given) = found
    asked = user_asks(worded(lesson.prompt, {question: subject}, question))
    answers = tuple(worded(lesson.answer, {answer: each}, answer) for each in given)
    choices = tuple(worded(lesson.answer, {answer: each}, answer) for each in row.get("choices") or ())
    if len(set(choices)) < len(choices) or not all(choices):      # cleaning made two equal, or left nothing of one
        choices = ()
    yield Example(asked, answers[0], answers, subject, lesson.content == "documents", choices)


def _fields(lesson: Lesson, row: dict[str, Any]) -> tuple[tuple[str, str], tuple[str, list[str]]] | None:
    """Name and value of what is asked about, and of the answers; None for a record that there is no question in."""
    question, answer = TEMPLATE_FIELDS[lesson.content]
    if lesson.content == "documents":
        pair = opening_and_continuation(row["text"], lesson.opening_words, lesson.continuation_words)
        return ((question, pair[0]), (answer, [pair[1]])) if pair and _long_enough(lesson, row["text"]) else None
    if lesson.content == "labelled":
        subject, answers = row["text"], [row["label"]] if row["label"] is not None else []
    elif lesson.content == "pairs":
        subject, answers = row["source_text"], [row["target_text"]]
    else:
        subject, answers = row["prompt"], list(row["answers"] or ())
    if not answers or not _long_enough(lesson, subject):
        return None
    return (question, _part(lesson, subject)), (answer, answers)


def _long_enough(lesson: Lesson, text: str) -> bool:
    return not lesson.min_words or len(text.split()) >= lesson.min_words


def _part(lesson: Lesson, text: str) -> str:
    if lesson.first_words is None and lesson.last_words is None:
        return text
    words = text.split()[:lesson.first_words]
    return " ".join(words[-lesson.last_words:] if lesson.last_words else words)


def opening_and_continuation(text: str, opening_words: int, continuation_words: int) -> tuple[str, str] | None:
    """The first `opening_words` words of a text, and what follows up to the last end of a sentence within
    `continuation_words` words; None when that is less than five words."""
    words = text.split(maxsplit=opening_words + continuation_words)[:opening_words + continuation_words]
    opening, rest = " ".join(words[:opening_words]), " ".join(words[opening_words:])
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", rest)]
    return (opening, rest[:ends[-1]]) if ends and len(rest[:ends[-1]].split()) >= LEAST_CONTINUATION else None


def user_asks(content: str) -> Chat:
    """A chat of one message, by the user."""
    message: Message = {"role": "user", "content": content}
    return [message]
