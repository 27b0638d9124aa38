"""A language model judges pairs of answers: how often those of a model are better than those of the one that it was
made from.

The judge is asked about each pair in both orders, since models prefer a place (Zheng et al. 2023, "Judging
LLM-as-a-judge with MT-Bench and Chatbot Arena", section 3.4). Only an answer that is better in both orders wins;
anything else is a tie. What it says is the likelier of the two labels, so that no text has to be read.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from genai_core.config.release import EvaluateConfig
from genai_core.config.tasks import Task
from genai_core.context import Reporter
from genai_core.data.chat import Chat
from genai_core.data.instruction.examples import Example, prompts_of, user_asks
from genai_core.errors import InputError
from genai_core.evaluation.language_model import Evaluated
from genai_core.evaluation.outside import judge_directory
from genai_core.evaluation.release.columns import parent_of
from genai_core.evaluation.samples import samples_of
from genai_core.evaluation.tasks import Subject, alike, continuations
from genai_core.inference.likelihood import answer_log_probs
from genai_core.inference.text import open_text_model

LABELS = ("A", "B")
QUESTION = ("Which of two answers to a message is better?\n\nMessage:\n{prompt}\n\nAnswer A:\n{first}\n\nAnswer B:\n"
            "{second}\n\nReply with A or B.")


@dataclass(frozen=True)
class PairVerdicts:
    """Verdicts on pairs of answers."""

    scores: list[float]
    """Of each pair 1 where the answer wins, 0 where the other one does, 0.5 for a tie."""
    consistent: float
    """Share of the pairs of different answers that got the same verdict in both orders."""


def judge_pairs(judge: Subject, prompts: list[Chat], answers: list[str], others: list[str]) -> PairVerdicts:
    """Verdicts of a model on each answer against the other one to the same prompt; equal answers are ties."""
    places = [place for place, (answer, other) in enumerate(zip(answers, others, strict=True)) if answer != other]
    shown = [(answers[place], others[place], prompts[place]) for place in places]
    first = _prefers_first(judge, [(prompt, answer, other) for answer, other, prompt in shown])
    second = _prefers_first(judge, [(prompt, other, answer) for answer, other, prompt in shown])
    scores = [0.5] * len(answers)
    for place, wins_first, loses_second in zip(places, first, second, strict=True):
        if wins_first != loses_second:      # the same answer, in whatever place it stood
            scores[place] = float(wins_first)
    decided = sum(score != 0.5 for score in scores)
    return PairVerdicts(scores, decided / len(places) if places else 1.0)


def _prefers_first(judge: Subject, pairs: list[tuple[Chat, str, str]]) -> list[bool]:
    """Whether log p(A | question) > log p(B | question), for each prompt with two answers."""
    if not pairs:
        return []
    labels = [judge.encode_answer(label) for label in LABELS]
    examples = [Example(user_asks(QUESTION.format(prompt=_text(prompt), first=first, second=second)), "", (), "")
                for prompt, first, second in pairs]
    room = judge.model.context_length - max(map(len, labels))
    asked = judge.prompts(Task(content="chats"), examples, room)
    scores = answer_log_probs(judge.model, [prompt for prompt in asked for _ in labels], labels * len(asked))
    return [bool(first > second) for first, second in scores.view(-1, len(labels)).tolist()]


def _text(prompt: Chat) -> str:
    """A single message as it stands, a conversation with who speaks."""
    if len(prompt) == 1:
        return prompt[0]["content"]
    return "\n".join(f"{message['role']}: {message['content']}" for message in prompt)


def add_win_rates(table: dict[str, Evaluated], config: EvaluateConfig, models: dict[str, Path],
                  knows_chats: dict[str, bool], tasks: dict[str, Task], cleaned: Path, root: Path,
                  device: torch.device, reporter: Reporter) -> None:
    """Put `win_rate` and `judge_consistency` into the column of each model that was made from another of the run.

    The answers are the likeliest ones to held-out questions. Raises InputError where these are missing.
    """
    setting = config.judge
    prompts = prompts_of(tasks, setting.tasks, cleaned, "test", config.seed)[:setting.questions]
    if not prompts:
        raise InputError(f"evaluate.judge.tasks: {', '.join(setting.tasks) or 'none'} has no held-out question")
    tokens = max(tasks[name].answer_tokens for name in setting.tasks)
    answers: dict[str, list[str]] = {}
    for name, directory in models.items():
        opened = open_text_model(directory, device)
        subject = Subject(opened.model, opened.tokenizer, knows_chats[name])
        answers[name] = continuations(subject, tasks, prompts, tokens, temperature=0.0)
    opened = open_text_model(judge_directory(config, root), device)
    judge = Subject(opened.model, opened.tokenizer, opened.produces == "chat")
    asked = [example.asked for _, example in prompts]
    for name in list(models)[1:]:
        parent = parent_of(name, models)
        judged = judge_pairs(judge, asked, answers[name], answers[parent])
        samples = samples_of([f"{task}, judged" for task, _ in prompts], [example for _, example in prompts],
                             answers[parent], answers[name])
        table[name].add_outcomes("win_rate", sum(judged.scores) / len(judged.scores), alike(judged.scores), samples)
        table[name].figures["judge_consistency"] = judged.consistent
        low, high = table[name].intervals["win_rate"]
        reporter.note(f"{name} against {parent}: win rate {table[name].figures['win_rate']:.3f} "
                      f"[{low:.3f}, {high:.3f}] of {len(asked):,}, {judged.consistent:.0%} the same in both orders")
    if judge.cut:
        reporter.note("the context of the judge is too short for some pairs of answers, which lost their beginning")
