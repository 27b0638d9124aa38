"""The instruction tasks: how each is worded, and the chats that the mixture of fine-tuning is made of.

`trivia` and `dialogue` (every other chat, your own included) were asked and answered by people, as they stand.
`sentiment`, `translation`, `continuation` and `title` wrap data that people labelled, translated, wrote or named in one
fixed template each; they are templated, and named so.
"""

import re
from pathlib import Path
from typing import Any

import numpy as np

from genai_core.config.training import INSTRUCTION_TASKS, InstructConfig
from genai_core.data.chat import Message
from genai_core.data.tables import read_table
from genai_core.errors import InputError

LABELS = ("negative", "positive")
"""What the labels 0 and 1 of a review say."""
REVIEW_WORDS = 90
"""Most words of a review whose sentiment is asked for."""
CONTINUATION_WORDS = 36
"""Most words of a continuation."""
TITLE_WORDS = 80
"""Most words of a text that a title is asked for."""
CONTINUATION_PROMPT_TOKENS = 24
"""Length of a rendered continuation prompt, about: what estimates of work count before there are prompts."""

Chat = list[Message]


def end_of_review(review: str) -> str:
    """The last words of a review, which are all that a model reads of it: a verdict tends to come at the end."""
    return " ".join(review.split()[-REVIEW_WORDS:])


def sentiment_prompt(review: str) -> str:
    """Question for the sentiment of a review, put to the end of it."""
    return f"Is this review positive or negative?\n\n{end_of_review(review)}"


def translation_prompt(english: str) -> str:
    return f"Translate to Spanish: {english}"


def continuation_prompt(opening: str) -> str:
    return f"Continue this film review: {opening}"


def title_prompt(text: str) -> str:
    """Request for a title of a text, whose first words are kept: what it is about tends to come first."""
    return f"Give this text a title:\n\n{' '.join(text.split()[:TITLE_WORDS])}"


def opening_and_continuation(review: str, opening_words: int) -> tuple[str, str] | None:
    """The first `opening_words` words of a review, and what follows up to the last end of a sentence within
    CONTINUATION_WORDS words; None when that is less than five words."""
    words = review.split()
    opening = " ".join(words[:opening_words])
    rest = " ".join(words[opening_words:opening_words + CONTINUATION_WORDS])
    ends = [match.end() for match in re.finditer(r"[.!?](?=\s|$)", rest)]
    return (opening, rest[:ends[-1]]) if ends and len(rest[:ends[-1]].split()) >= 5 else None


def user_asks(content: str) -> Chat:
    """A chat of one message, by the user."""
    return [{"role": "user", "content": content}]


def build_mixture(cleaned: Path, config: InstructConfig, opening_words: int, split: str = "train") -> list[Chat]:
    """Chats of one pass, shuffled: as many of each task as the config says, repeated where there are fewer.

    Raises InputError for a task that the config asks for and the data does not have.
    """
    generator = np.random.default_rng([config.seed, len(split)])
    by_task = _drawn(generator, cleaned, config, opening_words, split)
    mixture = [chat for chats in by_task.values() for chat in chats]
    return [mixture[index] for index in generator.permutation(len(mixture))]


def sentiment_examples(cleaned: Path, config: InstructConfig, opening_words: int) -> list[tuple[str, int]]:
    """Text and label of the reviews of the training mixture, each once: what another classifier may learn from to be
    like for like with a model that was fine-tuned on the mixture."""
    split = "train"
    generator = np.random.default_rng([config.seed, len(split)])
    chats = _drawn(generator, cleaned, config, opening_words, split).get("sentiment", [])
    answers = {chat[0]["content"]: chat[1]["content"] for chat in chats}
    return [(question.split("\n\n", 1)[1], LABELS.index(answer)) for question, answer in answers.items()]


def _drawn(generator: np.random.Generator, cleaned: Path, config: InstructConfig, opening_words: int, split: str
           ) -> dict[str, list[Chat]]:
    """The chats of each task of the mixture, in the order of INSTRUCTION_TASKS, since all draw from one generator."""
    drawn: dict[str, list[Chat]] = {}
    for task in INSTRUCTION_TASKS:
        wanted = getattr(config, task)
        if not wanted:
            continue
        available = _chats_of(task, cleaned, split, opening_words)
        if not available and split != "train":
            continue
        if not available:
            raise InputError(f"instruct.{task}: asks for {wanted:,} chats, but the collected data has none; set it to "
                             "0 or switch the source on")
        order = np.concatenate([generator.permutation(len(available))
                                for _ in range(-(-wanted // len(available)))])[:wanted]
        drawn[task] = [available[index] for index in order]
    return drawn


def _chats_of(task: str, cleaned: Path, split: str, opening_words: int) -> list[Chat]:
    if task == "translation":
        return [[*user_asks(translation_prompt(row["source_text"])), _answer(row["target_text"])]
                for row in read_table(cleaned, "translations", split=split)]
    if task == "title":
        return [[*user_asks(title_prompt(row["text"])), _answer(row["title"])]
                for row in read_table(cleaned, "titles", split=split)]
    if task == "sentiment":
        return [[*user_asks(sentiment_prompt(row["text"])), _answer(LABELS[row["label"]])]
                for row in labelled_reviews(cleaned, split)]
    if task == "continuation":
        pairs = [opening_and_continuation(row["text"], opening_words) for row in labelled_reviews(cleaned, split)]
        return [[*user_asks(continuation_prompt(pair[0])), _answer(pair[1])] for pair in pairs if pair]
    return [row["messages"] for row in read_table(cleaned, "chats", split=split)
            if bool(row["accepted"]) == (task == "trivia")]


def labelled_reviews(cleaned: Path, split: str) -> list[dict[str, Any]]:
    """Reviews with a sentiment label, sentences shorter than ten words left out."""
    return [row for row in read_table(cleaned, "documents", split=split)
            if row["label"] is not None and len(row["text"].split()) >= 10]


def review_openings(cleaned: Path, split: str, words: int, seed: int) -> list[str]:
    """The first words of the reviews of a split, shuffled. Raises InputError when there are no reviews."""
    pairs = [opening_and_continuation(row["text"], words) for row in labelled_reviews(cleaned, split)]
    openings = [pair[0] for pair in pairs if pair]
    if not openings:
        raise InputError(f"rlhf: no labelled review in the {split} split to take openings from; switch a review "
                         "source on")
    return [openings[index] for index in np.random.default_rng(seed).permutation(len(openings))]


def _answer(content: str) -> Message:
    return {"role": "assistant", "content": content}
