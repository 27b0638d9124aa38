"""Asking a language model the questions of a task, and judging what it answers.

A base model has never seen the chat format, so each question is put to it as plain text that asks for the same.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import torch
from sacrebleu.metrics import CHRF
from tokenizers import Tokenizer

from genai_core.config.tasks import Task, worded
from genai_core.data.chat import (
    END_OF_TEXT,
    TURN_END,
    document_start,
    end_ids,
    fit_prompt,
    token_id,
    without_specials,
)
from genai_core.data.instruction.examples import Example, plain_question
from genai_core.data.shards.splits import fingerprint
from genai_core.evaluation.intervals import Outcomes
from genai_core.evaluation.samples import Sample, samples_of
from genai_core.inference.generate import generate
from genai_core.inference.likelihood import answer_log_probs
from genai_core.inference.precision import inference_precision
from genai_core.inference.sampling import Sampling
from genai_core.models.language_model import LanguageModel
from genai_core.rewards.answers import equal_number

SLOTS = 64


@dataclass(frozen=True)
class AskedTask:
    """A task and the questions of it that every model of a run is asked."""

    name: str
    task: Task
    examples: list[Example]
    labels: tuple[str, ...] = ()
    """Labels to choose from, where accuracy is measured."""

    @property
    def with_choices(self) -> list[Example]:
        return [example for example in self.examples if example.choices]

    @property
    def freely_answered(self) -> list[Example]:
        """Those that a model answers in its own words: all, but problems with choices only where the task says how it
        is judged."""
        return self.examples if self.task.metrics else [example for example in self.examples if not example.choices]


@dataclass
class Subject:
    """A model under evaluation."""

    model: LanguageModel
    tokenizer: Tokenizer
    chats: bool
    """Whether it knows the chat format."""
    cut: set[int] = field(default_factory=set)
    """Which examples lost the beginning of their prompt to fit into the context, by `id`: two metrics ask the same."""

    @property
    def cut_prompts(self) -> int:
        return len(self.cut)

    def prompts(self, task: Task, examples: list[Example], room: int) -> list[list[int]]:
        """Token ids of the questions, each at most `room`: as chats for a model that knows the format, else as plain
        text."""
        return [self._prompt(task, example, room) for example in examples]

    def _prompt(self, task: Task, example: Example, room: int) -> list[int]:
        if self.chats:
            ids, lost = fit_prompt(self.tokenizer, example.asked, room)
            self._note_cut(example, bool(lost))
            return ids
        ids = self.encode(plain_question(task, example))
        start = document_start(self.tokenizer) or ([] if ids else [token_id(self.tokenizer, END_OF_TEXT)])
        self._note_cut(example, len(start) + len(ids) > room)
        return start + ids[-(room - len(start)):]

    def _note_cut(self, example: Example, cut: bool) -> None:
        if cut:
            self.cut.add(id(example))

    def encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(without_specials(self.tokenizer, text), add_special_tokens=False).ids

    def encode_answer(self, text: str) -> list[int]:
        """Token ids of an answer as it follows its prompt."""
        return self.encode(text if self.chats else f" {text}")

    def complete(self, prompts: list[list[int]], tokens: int, sampling: Sampling | None = None) -> list[str]:
        """Completions of at most `tokens` tokens, up to the end of the turn or, of plain prompts, of the line."""
        if not prompts:
            return []
        with inference_precision(self.model):
            completions = generate(self.model, prompts, tokens, end_ids(self.tokenizer), sampling=sampling,
                                   slots=SLOTS, pad_id=token_id(self.tokenizer, END_OF_TEXT))
        texts = self.tokenizer.decode_batch(completions.unpadded())
        return [text.strip() if self.chats else text.strip().split("\n")[0] for text in texts]


Answered = dict[str, str | float]
"""A sample with the name of a figure and the value that the answer has of it."""


@dataclass(frozen=True)
class TaskResult:
    """How a model did on a task."""

    figure: float
    outcomes: Outcomes
    """The figure of each question by itself, from which noise is estimated."""
    samples: list[Sample] = field(default_factory=list)
    """Each question, what people answered and what the model answered."""
    silent: bool = False
    """Whether the model said nothing: it was asked how likely it finds what people answered."""


def ask(subject: Subject, asked: AskedTask) -> dict[str, TaskResult]:
    """The figures of a model on the questions of a task, by metric."""
    metrics = asked.task.judged_by
    results: dict[str, TaskResult] = {}
    if "accuracy" in metrics:
        results["accuracy"] = _accuracy(subject, asked)
    if "multiple_choice" in metrics and asked.with_choices:
        results["multiple_choice"] = _multiple_choice(subject, asked)
    examples = asked.freely_answered
    if examples and (judged := [metric for metric in metrics if metric in JUDGES]):
        room = subject.model.context_length - asked.task.answer_tokens
        prompts = subject.prompts(asked.task, examples, room)
        answers = subject.complete(prompts, asked.task.answer_tokens)
        samples = _samples(asked.name, examples, answers)
        for metric in judged:
            results[metric] = TaskResult(*JUDGES[metric](answers, examples), samples)
    if "bits_per_byte" in metrics:
        results["bits_per_byte"] = _bits_per_byte(subject, asked)
    return results


def _accuracy(subject: Subject, asked: AskedTask) -> TaskResult:
    """Share of the records whose label the model finds the likeliest of all, end of the turn included."""
    end = [token_id(subject.tokenizer, TURN_END)] if subject.chats else []
    choices = [subject.encode_answer(worded(asked.task.answer, {"label": label}, "label")) + end
               for label in asked.labels]
    prompts = subject.prompts(asked.task, asked.examples, subject.model.context_length - max(map(len, choices)))
    scores = answer_log_probs(subject.model, [prompt for prompt in prompts for _ in choices], choices * len(prompts))
    chosen = scores.view(len(prompts), len(choices)).argmax(1).tolist()
    answers = [worded(asked.task.answer, {"label": asked.labels[index]}, "label") for index in chosen]
    correct = [float(answer in example.answers) for answer, example in zip(answers, asked.examples, strict=True)]
    return TaskResult(sum(correct) / len(correct), alike(correct), _samples(asked.name, asked.examples, answers))


def _multiple_choice(subject: Subject, asked: AskedTask) -> TaskResult:
    """Share of the problems of which the model finds a right choice the likeliest for its length.

    argmax over choices c of log p(c | question) / bytes(c), without the end of the turn: acc_norm of
    lm-evaluation-harness (Gao 2021, "Multiple choice normalization in LM evaluation"; the harness counts characters).
    Without the division the shortest choice would win too often.
    """
    examples = asked.with_choices
    encoded = [_encoded_answers(subject, example.choices) for example in examples]
    rooms = [subject.model.context_length - max(map(len, choices)) for choices, _ in encoded]
    prompts = [subject.prompts(asked.task, [example], room)[0]
               for example, room in zip(examples, rooms, strict=True)]
    scores = answer_log_probs(subject.model,
                              [prompt for prompt, (choices, _) in zip(prompts, encoded, strict=True) for _ in choices],
                              [choice for choices, _ in encoded for choice in choices])
    by_question = scores.split([len(choices) for choices, _ in encoded])
    chosen = [int((log_probs / torch.tensor(sizes)).argmax())
              for log_probs, (_, sizes) in zip(by_question, encoded, strict=True)]
    return chosen_among(asked.name, examples, chosen)


def chosen_among(name: str, examples: list[Example], chosen: list[int]) -> TaskResult:
    """How often the chosen of each example's choices is a right one."""
    answers = [example.choices[index] for example, index in zip(examples, chosen, strict=True)]
    correct = [float(answer in example.answers) for answer, example in zip(answers, examples, strict=True)]
    return TaskResult(sum(correct) / len(correct), alike(correct), _samples(name, examples, answers))


def _encoded_answers(subject: Subject, answers: Iterable[str]) -> tuple[list[list[int]], list[float]]:
    """Token ids of answers, of long ones as many as fit into half the context, and their UTF-8 bytes."""
    encoded = [subject.encode_answer(answer)[:subject.model.context_length // 2] for answer in answers]
    return encoded, [float(len(subject.tokenizer.decode(answer).strip().encode()) or 1) for answer in encoded]


def _bits_per_byte(subject: Subject, asked: AskedTask) -> TaskResult:
    """Bits that the model needs for the answers that people gave, by their UTF-8 bytes."""
    answers, sizes = _encoded_answers(subject, (example.answer for example in asked.examples))
    prompts = [subject.prompts(asked.task, [example], subject.model.context_length - len(answer))[0]
               for example, answer in zip(asked.examples, answers, strict=True)]
    bits = (-answer_log_probs(subject.model, prompts, answers) / math.log(2)).tolist()
    return TaskResult(sum(bits) / sum(sizes), [[round(value, 3) for value in bits], sizes],
                      _samples(asked.name, asked.examples, [""] * len(bits)), silent=True)


def exact_match(answers: list[str], examples: list[Example]) -> tuple[float, Outcomes]:
    """Share of the answers whose letters and digits are those of one that counts as right."""
    correct = [float(fingerprint(answer) in {fingerprint(known) for known in example.answers})
               for answer, example in zip(answers, examples, strict=True)]
    return sum(correct) / len(correct), alike(correct)


def same_number(answers: list[str], examples: list[Example]) -> tuple[float, Outcomes]:
    """Share of the answers whose last number equals that of one that counts as right."""
    correct = [float(equal_number(answer, example.answers)) for answer, example in zip(answers, examples, strict=True)]
    return sum(correct) / len(correct), alike(correct)


def chrf(answers: list[str], examples: list[Example]) -> tuple[float, Outcomes]:
    """Corpus chrF (Popović 2015), 0 to 100, against every answer that counts as right; outcomes are by question."""
    references = [example.answers for example in examples]
    columns = [[row[number] if number < len(row) else None for row in references]
               for number in range(max(map(len, references)))]
    corpus = CHRF().corpus_score(answers, columns).score      # type: ignore[arg-type]
    return corpus, alike([CHRF().sentence_score(answer, list(known)).score
                          for answer, known in zip(answers, references, strict=True)])


JUDGES: dict[str, Callable[[list[str], list[Example]], tuple[float, Outcomes]]] = {
    "exact_match": exact_match, "number": same_number, "chrf": chrf}


def alike(values: list[float]) -> Outcomes:
    """Outcomes that count alike."""
    return [[round(value, 4) for value in values], [1.0] * len(values)]


def _samples(name: str, examples: list[Example], answers: list[str]) -> list[Sample]:
    return samples_of([name] * len(examples), examples, [" / ".join(example.answers) for example in examples], answers)


def continuations(subject: Subject, tasks: dict[str, Task], prompts: list[tuple[str, Example]], tokens: int,
                  temperature: float, seed: int = 0) -> list[str]:
    """Answers of `tokens` tokens at most to prompts, each with the name of its task; temperature 0 takes the likeliest
    words."""
    torch.manual_seed(seed)
    room = subject.model.context_length - tokens
    encoded = [subject.prompts(tasks[name], [example], room)[0] for name, example in prompts]
    return subject.complete(encoded, tokens, Sampling(temperature))
