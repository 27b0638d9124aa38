"""The chats of one pass of fine-tuning: as many of each lesson as it says, in random order."""

from pathlib import Path
from typing import NamedTuple

import numpy as np

from genai_core.config.tasks import Lesson, Mixture
from genai_core.data.chat import Chat
from genai_core.data.instruction.examples import Example, examples_of
from genai_core.errors import InputError


class MixedChat(NamedTuple):
    """A chat of the mixture."""

    messages: Chat
    power: float
    """Weight of an answer of n tokens, as the power of n."""


POWERS = {"token": 1.0, "root": 0.5, "example": 0.0}


def build_mixture(cleaned: Path, mixture: Mixture, seed: int, split: str = "train") -> list[MixedChat]:
    """Chats of one pass, shuffled: as many of each lesson as it asks for, repeated where there are fewer.

    Raises InputError for a lesson that asks for training chats and finds no record.
    """
    generator = np.random.default_rng([seed, len(split)])
    mixed = []
    for name, lesson in mixture.lessons.items():
        drawn = _draw(generator, name, lesson, cleaned, split)
        mixed += [MixedChat(example.chat, POWERS[lesson.loss]) for example in drawn]
    return [mixed[index] for index in generator.permutation(len(mixed))]


def labelled_examples(cleaned: Path, mixture: Mixture, name: str, seed: int) -> list[Example]:
    """The training examples of a lesson that the mixture has, each once: what another classifier may learn from to be
    like for like with a model that was fine-tuned on the mixture."""
    generator = np.random.default_rng([seed, len("train")])
    for each, lesson in mixture.lessons.items():      # all draw from one generator, in this order
        drawn = _draw(generator, each, lesson, cleaned, "train")
        if each == name:
            return list({repr(example.asked): example for example in drawn}.values())
    return []


def _draw(generator: np.random.Generator, name: str, lesson: Lesson, cleaned: Path, split: str) -> list[Example]:
    available = examples_of(lesson, cleaned, split)
    if not available and split == "train":
        raise InputError(f"tasks.{name}: there is no training record of {_where(lesson)} to fine-tune on; set examples "
                         "to 0 or switch the source on")
    wanted = len(available) if lesson.examples is None else lesson.examples
    if not available or not wanted:
        return []
    order = np.concatenate([generator.permutation(len(available)) for _ in range(-(-wanted // len(available)))])
    return [available[index] for index in order[:wanted]]


def _where(lesson: Lesson) -> str:
    return f"{lesson.content} from {', '.join(lesson.sources)}" if lesson.sources else lesson.content
