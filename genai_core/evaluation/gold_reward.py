"""The gold reward: an independent measure of what RLHF set out to raise, which nothing was ever trained against.

A policy that is trained against a reward model learns what the model mistakes for good (Gao et al. 2023, "Scaling laws
for reward model overoptimization"), so its own reward model cannot tell whether it became better. This measure is of
another kind, from other labels, and takes off for text that repeats itself or that the base model finds unlikely: who
shouts praise loses.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tokenizers import Tokenizer

from genai_core.config.release import Gold
from genai_core.config.tasks import Lesson
from genai_core.config.training import RlhfConfig
from genai_core.data.chat import END_OF_TEXT, document_start, token_id
from genai_core.data.instruction.examples import Example, iterate_examples, prompts_of
from genai_core.data.instruction.judgements import Judgements, judgements
from genai_core.data.shards.splits import fingerprint
from genai_core.data.shards.tables import iterate_table
from genai_core.errors import InputError
from genai_core.evaluation.baselines.training_data import MOST_EXAMPLES, even_sample
from genai_core.evaluation.preferences import Scorer, texts_of, tfidf_preferences, tfidf_ridge
from genai_core.inference.likelihood import answer_log_probs
from genai_core.models.language_model import LanguageModel

MAX_QUALITY = 3.0
"""Deviations of how good an answer is by the labels, up or down, beyond which more counts nothing."""
LEAST_QUALITY = -10.0
"""Most deviations that repetition or unlikely words can take off each."""

Likelihood = Callable[[list[str], list[str]], np.ndarray]
"""Plain questions and answers to the mean log-probability of each answer's tokens after its question."""


@dataclass(frozen=True)
class Standard:
    """Means and standard deviations of the three parts, and of their sum, over the answers of the reference."""

    means: tuple[float, ...]
    deviations: tuple[float, ...]
    mean: float
    deviation: float


class GoldReward:
    """How good an answer is by the words of what people judged, less what repetition and unlikely words take off.

    With z the deviations from the reference's answers:
    g = clip(z_quality) + min(0, z_distinct) + min(0, z_likelihood), in standard deviations of the reference's g around
    its mean.
    """

    def __init__(self, scorer: Scorer, likelihood: Likelihood):
        self.scorer = scorer
        self.likelihood = likelihood

    def standard(self, questions: list[str], answers: list[str]) -> Standard:
        """The scale that scores are given on: that of these answers, the instruct model's own."""
        parts = self._parts(questions, answers)
        means, deviations = parts.mean(0), np.maximum(parts.std(0), 1e-6)
        scores = _combined((parts - means) / deviations)
        return Standard(tuple(means.tolist()), tuple(deviations.tolist()), float(scores.mean()),
                        max(float(scores.std()), 1e-6))

    def score(self, questions: list[str], answers: list[str], standard: Standard) -> np.ndarray:
        """Scores (N,) of answers: the reference's mean is 0, its standard deviation 1."""
        z = (self._parts(questions, answers) - np.array(standard.means)) / np.array(standard.deviations)
        z[[not answer.strip() for answer in answers]] = LEAST_QUALITY      # silence is no answer
        return (_combined(z) - standard.mean) / standard.deviation

    def _parts(self, questions: list[str], answers: list[str]) -> np.ndarray:
        """(N, 3): quality by the labels, share of distinct word pairs, mean log-probability of the tokens."""
        return np.stack([self.scorer(answers), [distinct_pairs(answer) for answer in answers],
                         self.likelihood(questions, answers)], axis=1)


class HeldOutGold:
    """Mean gold reward of answers to always the same questions; the first answers, which are the instruct model's, set
    the scale."""

    def __init__(self, reward: GoldReward, questions: list[str]):
        self.reward = reward
        self.questions = questions
        self.standard: Standard | None = None

    def __call__(self, answers: list[str]) -> float:
        if self.standard is None:
            self.standard = self.reward.standard(self.questions, answers)
        return float(self.reward.score(self.questions, answers, self.standard).mean())


def _combined(z: np.ndarray) -> np.ndarray:
    quality = np.clip(z[:, 0], -MAX_QUALITY, MAX_QUALITY)
    return np.asarray(quality + np.clip(z[:, 1:], LEAST_QUALITY, 0).sum(1))


def distinct_pairs(text: str) -> float:
    """Share of the word pairs of one text that are different ones, in whatever letters (distinct-2, Li et al. 2016); 1
    for a single word, which repeats nothing. Figures of many answers have that over all of them (`distinct`)."""
    words = text.lower().split()
    pairs = list(pairwise(words))
    return len(set(pairs)) / len(pairs) if pairs else float(bool(words))


def base_likelihood(model: LanguageModel, tokenizer: Tokenizer) -> Likelihood:
    """The likelihood under a base model, which reads question and answer as plain text."""
    def likelihood(questions: list[str], answers: list[str]) -> np.ndarray:
        start, nothing = document_start(tokenizer), [token_id(tokenizer, END_OF_TEXT)]
        asked = [start + tokenizer.encode(question, add_special_tokens=False).ids or nothing for question in questions]
        answered = [tokenizer.encode(f" {answer}", add_special_tokens=False).ids for answer in answers]
        lengths = [min(len(answer), model.context_length - 1) for answer in answered]
        return answer_log_probs(model, asked, answered, start).numpy() / np.maximum(lengths, 1)

    return likelihood


def gold_scorer(cleaned: Path, gold: Gold, alignments: Sequence[RlhfConfig], tasks: Mapping[str, Lesson],
                reward_sources: tuple[str, ...]) -> tuple[Scorer, str]:
    """How good answers are, learned from what neither the reward model nor RLHF, in each of the trainings that are
    compared by it, has seen; and from what, in words.

    Labelled training records of `gold.task` tell it where it names a task, else the share of the ratings and
    preferences that the reward model was not given. Raises InputError when these are too few.
    """
    if gold.task:
        texts, labels = gold_labels(cleaned, gold, alignments, tasks, reward_sources)
        classifier = make_pipeline(
            TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, min_df=2 if len(texts) > 100 else 1,
                            max_features=100_000),
            LogisticRegression(C=10, max_iter=200))
        classifier.fit(texts, labels)
        return classifier.decision_function, f"{len(texts):,} labelled records of {gold.task}"
    kept = judgements(cleaned, "train", reward_sources, gold, kept=True)
    scorers = [_judged_scorer(kept, source) for source in kept.sources]
    if not scorers:
        raise InputError("evaluate.gold.fraction: no rating or preference is left for the gold reward; raise it, or "
                         "bring more")

    def score(answers: list[str]) -> np.ndarray:
        return np.asarray(sum(scorer(answers) for scorer in scorers))

    return score, f"{len(kept.all):,} judgements that the reward model was not given"


def _judged_scorer(kept: Judgements, source: str) -> Scorer:
    """Scores on the judgements of a source, in deviations of their own scores, so that sources count alike."""
    known = kept.of(source)
    fitted = (tfidf_ridge if known[0].group == source else tfidf_preferences)(known)
    own = fitted(texts_of(known))
    mean, deviation = own.mean(), max(float(own.std()), 1e-9)
    return lambda answers: (fitted(answers) - mean) / deviation


def gold_labels(cleaned: Path, gold: Gold, alignments: Sequence[RlhfConfig], tasks: Mapping[str, Lesson],
                reward_sources: tuple[str, ...]) -> tuple[list[str], list[bool]]:
    """Labelled training records, and whether they have the label that counts as good, of which RLHF has nothing: no
    text that people rated, none that the reward model was given, and none whose opening is a prompt. Of many an even
    choice."""
    known = {fingerprint(row["text"]) for row in iterate_table(cleaned, "ratings") if row["text"]}
    known |= {fingerprint(each.subject) for each in judgements(cleaned, "train", reward_sources, gold).rated
              if isinstance(each.subject, str)}
    openings: set[str] = set()
    lengths: set[int] = set()
    for alignment in alignments:
        prompts = prompts_of(tasks, alignment.tasks, cleaned, "train", alignment.seed)[:alignment.prompts]
        openings |= {example.subject for name, example in prompts if tasks[name].content == "documents"}
        lengths |= {tasks[name].opening_words for name in alignment.tasks if tasks[name].content == "documents"}
    whole = tasks[gold.task].model_copy(update={"first_words": None, "last_words": None})

    def is_new(example: Example) -> bool:
        words = example.subject.split()
        begins = any(" ".join(words[:length]) in openings for length in lengths)
        return not begins and fingerprint(example.subject) not in known

    kept, _ = even_sample(filter(is_new, iterate_examples(whole, cleaned, "train")), MOST_EXAMPLES)
    labels = [example.answer == gold.label for example in kept]
    if len(set(labels)) < 2:
        raise InputError(f"evaluate.gold: the training records of {gold.task} do not have both the label "
                         f"{gold.label!r} and another one")
    return [example.subject for example in kept], labels
