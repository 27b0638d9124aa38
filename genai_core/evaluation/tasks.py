"""The tasks on which a language model is judged: sentiment, translation, titles, trivia, and reward of continuations.

A base model has never seen the chat format, so each task is put to it as plain text that asks for the same.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from sacrebleu.metrics import CHRF
from tokenizers import Tokenizer

from genai_core.data.chat import END_OF_TEXT, end_ids, render_prompt, token_id
from genai_core.data.instructions import (
    LABELS,
    continuation_prompt,
    labelled_reviews,
    sentiment_prompt,
    title_prompt,
    translation_prompt,
    user_asks,
)
from genai_core.data.splits import fingerprint
from genai_core.data.tables import read_table
from genai_core.inference.generate import Sampling, generate
from genai_core.inference.reward import OpenedRewardModel
from genai_core.models.language_model import LanguageModel

BATCH = 64


@dataclass(frozen=True)
class Subject:
    """A model under test; `chats` says whether it knows the chat format."""

    model: LanguageModel
    tokenizer: Tokenizer
    chats: bool

    def prompt(self, chat: str, plain: str) -> list[int]:
        text = render_prompt(user_asks(chat)) if self.chats else plain
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def complete(self, prompts: list[list[int]], tokens: int, sampling: Sampling | None = None
                 ) -> tuple[list[str], int]:
        """Answers up to the end of turn, or for a plain prompt to the end of the line; and how many prompts lost their
        beginning, so that they and `tokens` of an answer fit into the context."""
        room = self.model.context_length - tokens
        cut = sum(len(prompt) > room for prompt in prompts)
        texts = []
        for first in range(0, len(prompts), BATCH):
            batch = [prompt[-room:] for prompt in prompts[first:first + BATCH]]
            done = generate(self.model, batch, tokens, end_ids(self.tokenizer), sampling=sampling,
                            pad_id=token_id(self.tokenizer, END_OF_TEXT))
            texts += self.tokenizer.decode_batch([row[mask].tolist() for row, mask in
                                                  zip(done.ids.cpu(), done.mask.cpu(), strict=True)])
        return [text.strip() if self.chats else text.strip().split("\n")[0] for text in texts], cut


Sample = dict[str, str]


@dataclass(frozen=True)
class Answered:
    """A model's figure on a task, its answers, and the outcome of each question, from which noise is estimated."""

    figure: float
    samples: list[Sample]
    outcomes: list[float]
    cut_prompts: int
    """Number of questions that lost their beginning because they do not fit into the model's context."""


@torch.no_grad()
def sentiment(subject: Subject, reviews: list[dict[str, Any]]) -> Answered:
    """Share of reviews whose label's word gets the higher probability."""
    lead = "" if subject.chats else " "
    words = [subject.tokenizer.encode(lead + label, add_special_tokens=False).ids for label in LABELS]
    differ = next(index for index, pair in enumerate(zip(*words, strict=False)) if pair[0] != pair[1])
    right: list[float] = []
    samples: list[Sample] = []
    cut = 0
    for row in reviews:
        asked = sentiment_prompt(row["text"])
        prompt = subject.prompt(asked, f"Review: {asked.split(chr(10) * 2, 1)[1]}\nThe review is")
        prompt += words[0][:differ]
        cut += len(prompt) > subject.model.context_length
        prompt = prompt[-subject.model.context_length:]
        device = next(subject.model.buffers(), next(subject.model.parameters())).device
        states = subject.model.hidden(torch.tensor([prompt], device=device))
        logits = subject.model.logits(states[:, -1])[0]
        said = int(logits[words[1][differ]] > logits[words[0][differ]])
        right.append(float(said == row["label"]))
        samples.append({"task": "sentiment", "asked": asked, "expected": LABELS[row["label"]],
                        "answered": LABELS[said]})
    return Answered(sum(right) / len(reviews), samples, right, cut)


def translation(subject: Subject, rows: list[dict[str, Any]], references: dict[str, list[str]]) -> Answered:
    """chrF (Popović 2015) against every translation that people gave of the sentence; outcomes are by sentence."""
    prompts = [subject.prompt(translation_prompt(row["source_text"]), f"English: {row['source_text']}\nSpanish:")
               for row in rows]
    answers, cut = subject.complete(prompts, tokens=40)
    expected = [references[row["source_text"]] for row in rows]
    samples = [{"task": "translation", "asked": row["source_text"], "expected": " / ".join(all_of),
                "answered": answer} for row, all_of, answer in zip(rows, expected, answers, strict=True)]
    by_sentence = [CHRF().sentence_score(answer, all_of).score
                   for answer, all_of in zip(answers, expected, strict=True)]
    return Answered(chrf(answers, expected), samples, by_sentence, cut)


def chrf(answers: list[str], references: list[list[str]]) -> float:
    """Corpus chrF, 0 to 100, with as many references a sentence as there are."""
    most = max(map(len, references))
    columns = [[row[number] if number < len(row) else None for row in references] for number in range(most)]
    return CHRF().corpus_score(answers, columns).score      # type: ignore[arg-type]


def titles(subject: Subject, rows: list[dict[str, Any]]) -> Answered:
    """chrF against the title that the authors of a text gave it: summarization at its shortest."""
    asked = [title_prompt(row["text"]) for row in rows]
    prompts = [subject.prompt(question, f"{question.split(chr(10) * 2, 1)[1]}\nTitle:") for question in asked]
    answers, cut = subject.complete(prompts, tokens=16)
    samples = [{"task": "title", "asked": question, "expected": row["title"], "answered": answer}
               for question, row, answer in zip(asked, rows, answers, strict=True)]
    expected = [[row["title"]] for row in rows]
    by_title = [CHRF().sentence_score(answer, one).score for answer, one in zip(answers, expected, strict=True)]
    return Answered(chrf(answers, expected), samples, by_title, cut)


def trivia(subject: Subject, rows: list[dict[str, Any]]) -> Answered:
    """Share of answers that equal an accepted one, letters and digits compared."""
    questions = [row["messages"][0]["content"] for row in rows]
    prompts = [subject.prompt(question, f"Question: {question}\nAnswer:") for question in questions]
    answers, cut = subject.complete(prompts, tokens=16)
    right = [float(fingerprint(answer) in {fingerprint(accepted) for accepted in row["accepted"]})
             for row, answer in zip(rows, answers, strict=True)]
    samples = [{"task": "trivia", "asked": question, "expected": row["messages"][1]["content"], "answered": answer}
               for question, row, answer in zip(questions, rows, answers, strict=True)]
    return Answered(sum(right) / len(rows), samples, right, cut)


def reward(subject: Subject, judge: OpenedRewardModel, openings: list[str], tokens: int, seed: int) -> Answered:
    """Mean reward of continuations sampled at temperature 1."""
    torch.manual_seed(seed)
    prompts = [subject.prompt(continuation_prompt(opening), opening) for opening in openings]
    answers, cut = subject.complete(prompts, tokens, Sampling(temperature=1.0))
    texts = [f"{opening} {answer}" for opening, answer in zip(openings, answers, strict=True)]
    samples = [{"task": "continuation", "asked": opening, "expected": "", "answered": answer}
               for opening, answer in zip(openings, answers, strict=True)]
    scores = judge.score(texts)
    return Answered(scores.mean().item(), samples, scores.tolist(), cut)


def held_out(cleaned: Path, name: str, count: int, seed: int) -> list[dict[str, Any]]:
    """A fixed random choice of the test split of a task's data, each question once."""
    if name == "sentiment":
        rows = labelled_reviews(cleaned, "test")
    elif name == "title":
        rows = read_table(cleaned, "titles", split="test")
    elif name == "trivia":
        rows = [row for row in read_table(cleaned, "chats", split="test") if row["accepted"]]
    else:
        rows = list({row["source_text"]: row for row in read_table(cleaned, "translations", split="test")}.values())
    return random.Random(seed).sample(rows, min(count, len(rows)))


def translation_references(cleaned: Path) -> dict[str, list[str]]:
    references: dict[str, list[str]] = {}
    for row in read_table(cleaned, "translations", split="test"):
        references.setdefault(row["source_text"], []).append(row["target_text"])
    return references
