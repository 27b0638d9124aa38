"""The tasks that a language model is evaluated on: sentiment, translation, titles, trivia, continuations.

A base model has never seen the chat format, so each task is put to it as plain text that asks for the same.
"""

from dataclasses import dataclass
from typing import Any

import torch
from sacrebleu.metrics import CHRF
from tokenizers import Tokenizer

from genai_core.data.chat import END_OF_TEXT, end_ids, render_prompt, token_id
from genai_core.data.instructions import (
    LABELS,
    continuation_prompt,
    sentiment_prompt,
    title_prompt,
    translation_prompt,
    user_asks,
)
from genai_core.data.splits import fingerprint
from genai_core.inference.generate import Sampling, generate, next_logits
from genai_core.models.language_model import LanguageModel

BATCH = 64


@dataclass(frozen=True)
class Subject:
    """A model under evaluation."""

    model: LanguageModel
    tokenizer: Tokenizer
    chats: bool
    """Whether it knows the chat format."""

    def prompt(self, chat: str, plain: str) -> list[int]:
        """Token ids of a question: rendered as a chat for a model that knows the format, else of the plain text."""
        text = render_prompt(user_asks(chat)) if self.chats else plain
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def complete(self, prompts: list[list[int]], tokens: int, sampling: Sampling | None = None
                 ) -> tuple[list[str], int]:
        """Completions of at most `tokens` tokens, up to the end of the turn or, of plain prompts, of the line; and the
        number of prompts that lost their beginning, so that they and a completion fit into the context."""
        room = self.model.context_length - tokens
        cut = sum(len(prompt) > room for prompt in prompts)
        texts = []
        for first in range(0, len(prompts), BATCH):
            batch = [prompt[-room:] for prompt in prompts[first:first + BATCH]]
            completions = generate(self.model, batch, tokens, end_ids(self.tokenizer), sampling=sampling,
                                   pad_id=token_id(self.tokenizer, END_OF_TEXT))
            texts += self.tokenizer.decode_batch(completions.unpadded())
        return [text.strip() if self.chats else text.strip().split("\n")[0] for text in texts], cut


Row = dict[str, Any]
Sample = dict[str, str]


@dataclass(frozen=True)
class TaskResult:
    """How a model did on a task."""

    figure: float
    samples: list[Sample]
    """Each question, what people answered and what the model answered."""
    outcomes: list[float]
    """The figure of each question by itself, from which noise is estimated."""
    cut_prompts: int
    """Number of prompts that lost their beginning to fit into the context."""


@torch.no_grad()
def sentiment(subject: Subject, reviews: list[Row]) -> TaskResult:
    """Accuracy: a review is predicted to have the label whose word gets the higher probability."""
    lead = "" if subject.chats else " "
    words = [subject.tokenizer.encode(lead + label, add_special_tokens=False).ids for label in LABELS]
    differ = next(index for index, pair in enumerate(zip(*words, strict=False)) if pair[0] != pair[1])
    questions = [sentiment_prompt(row["text"]) for row in reviews]
    prompts = [subject.prompt(question, f"Review: {_after_blank_line(question)}\nThe review is") + words[0][:differ]
               for question in questions]
    cut = sum(len(prompt) > subject.model.context_length for prompt in prompts)
    pad_id = token_id(subject.tokenizer, END_OF_TEXT)
    predictions: list[int] = []
    for first in range(0, len(prompts), BATCH):
        logits = next_logits(subject.model, [prompt[-subject.model.context_length:]
                                             for prompt in prompts[first:first + BATCH]], pad_id)
        predictions += (logits[:, words[1][differ]] > logits[:, words[0][differ]]).long().tolist()
    correct = [float(prediction == row["label"]) for prediction, row in zip(predictions, reviews, strict=True)]
    samples = [{"task": "sentiment", "asked": question, "expected": LABELS[row["label"]],
                "answered": LABELS[prediction]}
               for question, row, prediction in zip(questions, reviews, predictions, strict=True)]
    return TaskResult(sum(correct) / len(reviews), samples, correct, cut)


def translation(subject: Subject, rows: list[Row], references: dict[str, list[str]]) -> TaskResult:
    """Corpus chrF (Popović 2015) against every translation that people gave of a sentence; outcomes are by sentence."""
    prompts = [subject.prompt(translation_prompt(row["source_text"]), f"English: {row['source_text']}\nSpanish:")
               for row in rows]
    answers, cut = subject.complete(prompts, tokens=40)
    translations = [references[row["source_text"]] for row in rows]
    samples = [{"task": "translation", "asked": row["source_text"], "expected": " / ".join(accepted),
                "answered": answer} for row, accepted, answer in zip(rows, translations, answers, strict=True)]
    return TaskResult(chrf(answers, translations), samples, _sentence_chrf(answers, translations), cut)


def chrf(answers: list[str], references: list[list[str]]) -> float:
    """Corpus chrF, 0 to 100, of answers against the references of each."""
    most = max(map(len, references))
    columns = [[row[number] if number < len(row) else None for row in references] for number in range(most)]
    return CHRF().corpus_score(answers, columns).score      # type: ignore[arg-type]


def titles(subject: Subject, rows: list[Row]) -> TaskResult:
    """chrF against the title that the authors of a text gave it: summarization at its shortest."""
    questions = [title_prompt(row["text"]) for row in rows]
    prompts = [subject.prompt(question, f"{_after_blank_line(question)}\nTitle:") for question in questions]
    answers, cut = subject.complete(prompts, tokens=16)
    samples = [{"task": "title", "asked": question, "expected": row["title"], "answered": answer}
               for question, row, answer in zip(questions, rows, answers, strict=True)]
    expected = [[row["title"]] for row in rows]
    return TaskResult(chrf(answers, expected), samples, _sentence_chrf(answers, expected), cut)


def _sentence_chrf(answers: list[str], references: list[list[str]]) -> list[float]:
    return [CHRF().sentence_score(answer, accepted).score
            for answer, accepted in zip(answers, references, strict=True)]


def _after_blank_line(question: str) -> str:
    """The text that a question is about, which follows it after a blank line."""
    return question.split("\n\n", 1)[1]


def trivia(subject: Subject, rows: list[Row]) -> TaskResult:
    """Exact match: the share of answers whose letters and digits are those of an accepted one."""
    questions = [row["messages"][0]["content"] for row in rows]
    prompts = [subject.prompt(question, f"Question: {question}\nAnswer:") for question in questions]
    answers, cut = subject.complete(prompts, tokens=16)
    accepted = [{fingerprint(answer) for answer in row["accepted"]} for row in rows]
    correct = [float(fingerprint(answer) in known) for answer, known in zip(answers, accepted, strict=True)]
    samples = [{"task": "trivia", "asked": question, "expected": row["messages"][1]["content"], "answered": answer}
               for question, row, answer in zip(questions, rows, answers, strict=True)]
    return TaskResult(sum(correct) / len(rows), samples, correct, cut)


def continuations(subject: Subject, openings: list[str], tokens: int, temperature: float, seed: int = 0) -> list[str]:
    """Continuations of openings of reviews, of `tokens` tokens at most; temperature 0 takes the likeliest words."""
    torch.manual_seed(seed)
    prompts = [subject.prompt(continuation_prompt(opening), opening) for opening in openings]
    return subject.complete(prompts, tokens, Sampling(temperature))[0]
